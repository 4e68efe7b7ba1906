"""What the adapting jobs can know to be wrong before a run is made."""

import json

import pytest

from clew.errors import ClewError, UserError, did_you_mean
from clew.jobs import create_job_run, load_job
from clew.runs import Workspace


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return str(folder)


def create(tmp_path, job, model, task):
    return create_job_run(Workspace(tmp_path), load_job({"job": job, "name": "r", "model": model, "task": task}))


@pytest.mark.parametrize("job", ["sft", "grpo", "eval"])
def test_a_bad_row_is_named_before_a_run_exists(tmp_path, job, model):
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"prompt": "a", "completion": "b"}) + "\n{broken\n")
    with pytest.raises(UserError, match=r"rows\.jsonl:2: not valid JSON"):
        create(tmp_path, job, model, {"type": "dataset", "train": str(rows), "test": str(rows)})
    assert Workspace(tmp_path).list_runs() == []


@pytest.mark.parametrize("job", ["sft", "grpo", "eval"])
def test_a_model_that_is_not_there_is_named_before_a_run_exists(tmp_path, job):
    with pytest.raises(UserError, match="there is no such model folder"):
        create(tmp_path, job, str(tmp_path / "nothing"), {"type": "arithmetic"})
    assert Workspace(tmp_path).list_runs() == []


def test_batches_that_do_not_divide_name_both_fields(tmp_path):
    config = {"job": "sft", "model": "m", "task": {"type": "arithmetic"}}
    with pytest.raises(UserError, match=r"batch_size \(16\) must be a multiple of micro_batch_size \(5\)"):
        load_job({**config, "training": {"micro_batch_size": 5}})


@pytest.mark.parametrize(("beta", "lora"), [(0.1, None), (0.0, None), (0.1, {})])
def test_a_gguf_file_cannot_be_the_reference_of_all_its_weights(tmp_path, beta, lora):
    (tmp_path / "m.gguf").touch()
    config = {"job": "grpo", "name": "r", "model": str(tmp_path / "m.gguf"), "task": {"type": "arithmetic"}}
    loaded = load_job({**config, "lora": lora, "training": {"beta": beta}})
    if beta and lora is None:
        with pytest.raises(UserError, match=r"training\.beta needs the model a second time as the reference"):
            create_job_run(Workspace(tmp_path), loaded)
    else:
        assert create_job_run(Workspace(tmp_path), loaded).id == "r"


@pytest.mark.parametrize("job", ["pretrain", "sft", "grpo"])
def test_a_metric_that_decides_and_is_not_measured_is_named_before_a_run_exists(tmp_path, job, model):
    config = {"job": job, "task": {"type": "arithmetic"}, "evaluate": {"best_by": "exat"}}
    loaded = load_job(config if job == "pretrain" else {**config, "model": model})
    with pytest.raises(UserError) as caught:
        create_job_run(Workspace(tmp_path), loaded)
    assert str(caught.value) == (
        "evaluate.best_by is 'exat', which the task ArithmeticTask does not measure\n  did you mean 'exact'?"
    )
    assert Workspace(tmp_path).list_runs() == []


@pytest.mark.parametrize(
    ("job", "more", "fields"),
    [
        ("sft", {"publish": "best"}, "publish and evaluate.best_by"),
        ("grpo", {"training": {"early_stopping": {}}}, "training.early_stopping and evaluate.best_by"),
    ],
)
def test_a_best_that_nothing_decides_about_is_refused(job, more, fields):
    with pytest.raises(UserError, match=f"{fields}: nothing says which state is the best; set evaluate.best_by"):
        load_job({"job": job, "model": "m", "task": {"type": "arithmetic"}, **more})


def test_an_error_reads_the_same_on_one_line():
    error = ClewError("it is wrong", where="file:3", hint="mend it")
    assert str(error) == "file:3: it is wrong\n  mend it"
    assert error.one_line() == "file:3: it is wrong (mend it)"
    assert ClewError("it is wrong").one_line() == "it is wrong"


def test_a_suggestion_is_near_or_a_list():
    assert did_you_mean("evl", ["eval", "sft"]) == "did you mean 'eval'?"
    assert did_you_mean("x", ["eval", "sft"]) == "known: eval, sft"
    assert did_you_mean("x", []) == ""
