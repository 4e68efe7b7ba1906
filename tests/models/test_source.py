from __future__ import annotations

import json
import subprocess
import sys

import pytest

from clew.checkpoints import CheckpointStore
from clew.errors import UserError
from clew.models.source import ModelSource, check_reference, resolve
from clew.runs import RunInfo, create_run


@pytest.fixture
def runs(tmp_path):
    return tmp_path / "runs"


@pytest.fixture
def run(runs):
    return create_run(runs, RunInfo(id="tune-1", job="sft"), "{}", {})


def write_model(folder):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    return folder


def write_adapter(folder, base):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    return folder


def error_of(reference, runs):
    with pytest.raises(UserError) as caught:
        check_reference(str(reference), runs)
    return str(caught.value)


def test_a_folder_is_itself(tmp_path, runs):
    folder = write_model(tmp_path / "m")
    source = resolve(str(folder), runs)
    assert source == ModelSource(base=str(folder))
    assert source.is_local
    assert source.reference == str(folder)


def test_a_relative_folder_becomes_absolute(tmp_path, runs, monkeypatch):
    folder = write_model(tmp_path / "m")
    monkeypatch.chdir(tmp_path)
    assert resolve("m", runs).base == str(folder)


def test_an_adapter_brings_its_base(tmp_path, runs):
    base, adapter = write_model(tmp_path / "m"), write_adapter(tmp_path / "a", tmp_path / "m")
    source = resolve(str(adapter), runs)
    assert source == ModelSource(base=str(base), adapter=adapter)
    assert source.tokenizer_folder is None
    (adapter / "tokenizer_config.json").touch()
    assert source.tokenizer_folder == adapter


def test_a_gguf_file_is_its_folder_and_its_name(tmp_path, runs):
    (tmp_path / "small.Q4.gguf").touch()
    source = resolve(str(tmp_path / "small.Q4.gguf"), runs)
    assert source == ModelSource(base=str(tmp_path), gguf_file="small.Q4.gguf")
    assert source.reference == str(tmp_path / "small.Q4.gguf")


def test_an_adapter_on_a_gguf_file(tmp_path, runs):
    (tmp_path / "small.gguf").touch()
    adapter = write_adapter(tmp_path / "a", tmp_path / "small.gguf")
    assert resolve(str(adapter), runs) == ModelSource(base=str(tmp_path), adapter=adapter, gguf_file="small.gguf")


def test_a_hub_id_is_left_to_the_hub(runs):
    source = resolve("owner/some-model_1.5B", runs)
    assert source == ModelSource(base="owner/some-model_1.5B")
    assert not source.is_local


def test_a_run_gives_its_adapter_before_its_model(run, runs, tmp_path):
    model = write_model(run.artifacts / "model")
    assert resolve("run:tune-1", runs).base == str(model)
    adapter = write_adapter(run.artifacts / "adapter", model)
    assert resolve("run:tune-1", runs) == ModelSource(base=str(model), adapter=adapter)


def _write(folder, base):
    write_adapter(folder / "adapter", base)


@pytest.fixture
def checkpoints(run, tmp_path):
    base = write_model(tmp_path / "m")
    store = CheckpointStore(run.checkpoints)
    for step, loss in ((10, 2.0), (20, 1.0), (30, 3.0)):
        store.save(step, lambda folder: _write(folder, base), metric=loss)
    store.tag("calm", 10)
    return run.checkpoints


@pytest.mark.parametrize(("which", "step"), [("last", 30), ("best", 20), ("10", 10), ("calm", 10)])
def test_a_checkpoint_of_a_run(which, step, checkpoints, runs):
    adapter = resolve(f"run:tune-1@{which}", runs).adapter
    assert adapter == checkpoints / f"step-{step:08d}" / "adapter"


def test_a_damaged_checkpoint_is_passed_over_or_refused(checkpoints, runs):
    (checkpoints / "step-00000030" / "adapter" / "adapter_config.json").write_text("{}")
    assert "step-00000020" in str(resolve("run:tune-1@last", runs).adapter)
    assert error_of("run:tune-1@30", runs) == (
        "tune-1: checkpoint 30 is damaged: adapter/adapter_config.json does not match its hash\n  try run:tune-1@last"
    )


def test_a_checkpoint_that_is_not_there_names_those_that_are(checkpoints, runs):
    assert error_of("run:tune-1@15", runs) == "tune-1: there is no checkpoint '15'\n  known: best, last, 30, 20, 10"


def test_without_losses_no_checkpoint_is_the_best(run, runs):
    CheckpointStore(run.checkpoints).save(1, lambda folder: None)
    text = error_of("run:tune-1@best", runs)
    assert text == "tune-1: no checkpoint of the run has a validation loss and verifies"


def test_a_checkpoint_of_the_native_loop_is_no_model(run, runs):
    CheckpointStore(run.checkpoints).save(1, lambda folder: (folder / "trainer.json").touch())
    assert error_of("run:tune-1@1", runs).startswith("tune-1: checkpoint 1 holds training state, not a model")


def test_a_run_without_anything_to_load_says_its_state(run, runs):
    assert error_of("run:tune-1", runs) == (
        "tune-1: the run has published no adapter and no model (it is created)\n"
        "  take a checkpoint of it: run:tune-1@last"
    )
    assert error_of("run:tune-1@last", runs) == "tune-1: the run has no checkpoints"


def test_a_run_that_is_not_there_suggests_its_neighbour(run, runs):
    assert error_of("run:tune1", runs) == f"{runs}: there is no run 'tune1'\n  did you mean 'tune-1'?"
    assert "not a reference to a run" in error_of("run:", runs)


def test_a_missing_folder_or_file_suggests_its_neighbour(tmp_path, runs):
    write_model(tmp_path / "outputs" / "model")
    assert error_of(tmp_path / "outputs" / "modle", runs) == (
        f"{tmp_path}/outputs/modle: there is no such model folder\n  did you mean 'model'?"
    )
    assert error_of(tmp_path / "no" / "x.gguf", runs) == (
        f"{tmp_path}/no/x.gguf: there is no such GGUF file\n  the folder {tmp_path}/no does not exist either"
    )


def test_a_missing_folder_in_one_that_exists_is_no_hub_id(tmp_path, runs, monkeypatch):
    write_model(tmp_path / "outputs" / "model")
    monkeypatch.chdir(tmp_path)
    assert "there is no such model folder" in error_of("outputs/modle", runs)


def test_a_folder_without_a_model_is_refused(tmp_path, runs):
    assert error_of(tmp_path, runs) == (
        f"{tmp_path}: the folder holds no model\n  a model folder has a config.json, an adapter an adapter_config.json"
    )
    (tmp_path / "x.gguf").touch()
    assert error_of(tmp_path, runs).endswith(f"name the file: {tmp_path}/x.gguf")
    assert "this is a file; a model is a folder or a .gguf file" in error_of(__file__, runs)


def test_an_adapter_whose_base_is_gone_says_both_names(tmp_path, runs):
    adapter = write_adapter(tmp_path / "a", tmp_path / "gone")
    text = error_of(adapter, runs)
    assert text.startswith(f"{adapter}: the base of this adapter is not here: {tmp_path}/gone: there is no such model")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"base_model_name_or_path": null}'])
def test_a_damaged_adapter_is_refused(content, tmp_path, runs):
    (tmp_path / "adapter_config.json").write_text(content)
    assert f"{tmp_path}: adapter_config.json" in error_of(tmp_path, runs)


def test_adapters_that_stand_on_each_other_are_refused(tmp_path, runs):
    write_adapter(tmp_path / "a", tmp_path / "b")
    write_adapter(tmp_path / "b", tmp_path / "a")
    assert "the adapters stand on each other without end" in error_of(tmp_path / "a", runs)
    write_adapter(tmp_path / "b", write_model(tmp_path / "m"))
    assert "is an adapter too\n  merge that one into its base first" in error_of(tmp_path / "a", runs)


def test_a_reference_is_checked_without_torch():
    code = "import sys, clew.models.source, clew.tasks.dataset, clew.engines; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
