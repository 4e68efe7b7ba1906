"""A model or an adapter at a URL is a model: fetched once, verified, and the same one as long as nobody asks anew."""

from __future__ import annotations

import json
import shutil

import pytest
from pushed_runs import done_run

from clew.errors import UserError
from clew.models.source import ModelSource, check_reference, resolve
from clew.remote.base import base_of
from clew.remote.models import fetch_model
from clew.remote.push import push
from support import tiny_run

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw:DeprecationWarning")

MODEL = {"config.json": "{}", "model.safetensors": "weights", "tokenizer.json": "{}"}


def with_artifact(run, name: str, files: dict[str, str]):
    (run.artifacts / name).mkdir()
    for file, text in files.items():
        (run.artifacts / name / file).write_text(text)
    return run


def adapter(base: str, **more: object) -> dict[str, str]:
    return {
        "adapter_config.json": json.dumps({"base_model_name_or_path": base, "revision": None, **more}),
        "adapter_model.safetensors": "low rank",
        "README.md": "of the library",
    }


@pytest.fixture(params=["hub", "file"])
def url(request, tmp_path):
    if request.param == "hub":
        request.getfixturevalue("hub")
        return "hf://me/model"
    return f"file://{tmp_path}/elsewhere/model"


def test_a_pushed_model_is_a_model(url, here, there):
    push(with_artifact(done_run(here), "model", MODEL), url)
    source = resolve(url, there.runs)
    assert source.is_local
    folder = there.root / "models"
    assert {path.name: path.read_text() for path in (folder / source.base).iterdir() if path.name in MODEL} == MODEL
    assert not any((folder / source.base).rglob("run.json")), "only the model is fetched"


def test_it_is_fetched_once_and_found_again_without_the_remote(url, here, there, monkeypatch):
    push(with_artifact(done_run(here), "model", MODEL), url)
    first = resolve(url, there.runs)
    monkeypatch.setattr("clew.remote.models.open_location", lambda url: pytest.fail("the remote was asked"))
    assert resolve(url, there.runs) == first
    assert resolve(first.reference, there.runs).base == first.base


def test_it_stays_the_same_until_it_is_fetched_anew(url, here, there):
    run = with_artifact(done_run(here), "model", MODEL)
    push(run, url)
    first = resolve(url, there.runs)
    (run.artifacts / "model" / "model.safetensors").unlink()
    (run.artifacts / "model" / "model.safetensors").write_text("other weights")
    push(run, url)
    assert resolve(url, there.runs) == first
    fetch_model(url, there.root, anew=True)
    second = resolve(url, there.runs)
    assert second.base != first.base
    assert (there.root / "models" / second.base / "model.safetensors").read_text() == "other weights"


def test_a_repository_is_named_with_its_commit(hub, here, there):
    pushed = push(with_artifact(done_run(here), "model", MODEL), "hf://me/model/below")
    source = resolve("hf://me/model/below", there.runs)
    assert source.reference == f"hf://me/model@{pushed.remote.revision}/below"


def test_an_adapter_finds_a_base_that_has_a_name_everywhere(hub, here, there):
    base = push(with_artifact(done_run(here, name="base"), "model", MODEL), "hf://me/base").remote
    trained_on = resolve("hf://me/base", here.runs).reference
    run = with_artifact(done_run(here, name="tune"), "adapter", adapter(trained_on))
    done = push(run, "hf://me/tune")
    config = json.loads(hub.repos["me/tune"].files["adapter_config.json"].content)
    assert (config["base_model_name_or_path"], config["revision"]) == ("me/base", base.revision)
    assert done.base.is_elsewhere
    source = resolve("hf://me/tune", there.runs)
    assert source.adapter is not None
    assert source.reference == f"hf://me/base@{base.revision}"
    kept = hub.repos["me/tune"].files["clew/artifacts/adapter/adapter_config.json"].content
    assert kept == (run.artifacts / "adapter" / "adapter_config.json").read_bytes(), "the run's own stays as it was"


def test_an_adapter_of_a_local_folder_can_be_given_a_base_that_others_find(hub, here, there, tmp_path):
    run = with_artifact(done_run(here), "adapter", adapter(str(tmp_path / "models" / "small")))
    done = push(run, "hf://me/tune")
    assert not done.base.is_elsewhere
    card = hub.repos["me/tune"].files["README.md"].content.decode()
    assert "- Base model: `small`, a folder of the machine where this was trained" in card
    with pytest.raises(UserError, match="the base of this adapter is not here"):
        resolve("hf://me/tune", there.runs)
    push(run, "hf://me/tune", base="owner/small")
    card = hub.repos["me/tune"].files["README.md"].content.decode()
    assert "base_model: owner/small" in card
    fetch_model("hf://me/tune", there.root, anew=True)
    assert resolve("hf://me/tune", there.runs).base == "owner/small"


def test_a_model_that_somebody_else_put_there_is_verified_and_its_pickles_stay_there(hub, there):
    from hub_server import Blob, Repo

    files = {**MODEL, "pytorch_model.bin": "a pickle", "modeling.py": "code", "onnx/config.json": "{}"}
    hub.repos["them/model"] = repo = Repo()
    tree = {path: Blob(text.encode(), large=path.endswith("tensors")) for path, text in files.items()}
    repo.commit("main", tree, "theirs")
    hub.large = {blob.sha256: blob.content for blob in tree.values() if blob.large}
    source = resolve("hf://them/model", there.runs)
    assert {path.name for path in (there.root / "models" / source.base).iterdir()} == set(MODEL)
    shutil.rmtree(there.root / "models")
    hub.large = dict.fromkeys(hub.large, b"weights"[:-1] + b"z")
    with pytest.raises(UserError, match=r"model\.safetensors does not match its hash"):
        resolve("hf://them/model", there.runs)
    assert list((there.root / "models").glob("*")) == []


def test_a_gguf_file_is_fetched_alone(hub, there):
    from hub_server import Blob, Repo

    hub.repos["them/model"] = repo = Repo()
    repo.commit("main", {name: Blob(b"bytes", large=False) for name in ("a.gguf", "b.gguf")}, "theirs")
    source = resolve("hf://them/model/a.gguf", there.runs)
    assert source.gguf_file == "a.gguf"
    assert [path.name for path in (there.root / "models" / source.base).iterdir()] == ["a.gguf"]
    assert source.reference == f"hf://them/model@{repo.branches['main']}/a.gguf"


def test_an_exported_gguf_file_stands_at_the_top(url, here, there):
    run = done_run(here)
    (run.artifacts / "model.gguf").write_text("bytes")
    push(run, url)
    assert resolve(f"{url}/model.gguf", there.runs).gguf_file == "model.gguf"


def test_offline_is_one_clear_error(there, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    check_reference("hf://me/model", there.runs)
    with pytest.raises(UserError) as told:
        resolve("hf://me/model", there.runs)
    assert "this model has not been fetched yet: the Hub is not asked in offline mode" in str(told.value)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("hf://me", "this is not a model repository"),
        ("hf://me/nothing", "there is nothing there, or nothing that may be seen"),
        ("hf://me/walk", "no model and no adapter is there"),
    ],
)
def test_a_url_without_a_model_is_said(hub, here, there, url, told):
    push(done_run(here), "hf://me/walk")
    with pytest.raises(UserError, match=told):
        resolve(url, there.runs)


def test_a_base_is_read_from_the_adapter(here):
    run = tiny_run(here, name="walk")
    assert base_of(run) is None
    with_artifact(run, "adapter", adapter("owner/base", revision="abc"))
    assert (base_of(run).name, base_of(run).revision) == ("owner/base", "abc")
    assert (base_of(run, "hf://a/b@c").name, base_of(run, "hf://a/b@c").revision) == ("a/b", "c")
    assert ModelSource(base="x", url="hf://a/b@c").reference == "hf://a/b@c"
