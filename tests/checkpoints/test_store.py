import json
import shutil
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clew.checkpoints import CheckpointStore
from clew.errors import UserError


def writer(text="weights"):
    def write(folder):
        (folder / "model.safetensors").write_bytes(text.encode() * 100)
        (folder / "sub").mkdir()
        (folder / "sub" / "state.json").write_text(json.dumps({"text": text}))

    return write


@pytest.fixture
def store(tmp_path):
    return CheckpointStore(tmp_path, attempt=1)


def test_a_saved_checkpoint_verifies_and_is_found(store):
    store.save(10, writer())
    store.save(20, writer())
    good, bad = store.newest_good()
    assert (good.step, bad) == (20, {})
    assert good.manifest.attempt == 1


def test_without_checkpoints_there_is_none(store):
    assert store.newest_good() == (None, {})


def _flip_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


DAMAGE = {
    "a flipped bit": (lambda folder: _flip_bit(folder / "model.safetensors"), "does not match its hash"),
    "a truncated file": (lambda folder: (folder / "sub" / "state.json").write_text(""), "does not match its hash"),
    "a missing file": (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors is missing"),
    "a stray file": (lambda folder: (folder / "extra.bin").write_text("x"), "extra.bin is not in the manifest"),
    "no manifest": (lambda folder: (folder / "manifest.json").unlink(), "manifest.json is missing or damaged"),
    "a torn manifest": (lambda folder: (folder / "manifest.json").write_text('{"step"'), "missing or damaged"),
    "an odd manifest": (lambda folder: (folder / "manifest.json").write_text("[]"), "missing or damaged"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named_and_the_newest_good_one_is_used(store, tmp_path, damage):
    store.save(10, writer())
    act, text = DAMAGE[damage]
    act(store.save(20, writer()).path)
    good, bad = store.newest_good()
    assert good.step == 10
    assert text in bad[20]


def test_a_manifest_of_another_step_is_refused(store):
    first, second = store.save(10, writer()), store.save(20, writer())
    shutil.copy(first.path / "manifest.json", second.path / "manifest.json")
    assert store.newest_good()[1] == {20: "manifest.json belongs to step 10"}


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_flipped_byte_in_any_file_is_detected(tmp_path_factory, data):
    store = CheckpointStore(tmp_path_factory.mktemp("run"))
    folder = store.save(1, writer("w")).path
    path = data.draw(st.sampled_from([folder / "model.safetensors", folder / "sub" / "state.json"]))
    content = bytearray(path.read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= data.draw(st.integers(1, 255))
    path.write_bytes(bytes(content))
    assert store.newest_good()[0] is None


def test_a_save_that_fails_leaves_no_checkpoint_and_the_old_one(store):
    store.save(10, writer())

    def fails(folder):
        (folder / "model.safetensors").write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        store.save(20, fails)
    assert [item.step for item in store.all()] == [10]
    assert store.newest_good()[0].step == 10


def test_a_replaced_attempt_cannot_commit(tmp_path):
    @contextmanager
    def fence():
        raise PermissionError("replaced")
        yield

    store = CheckpointStore(tmp_path, attempt=1, fence=fence)
    with pytest.raises(PermissionError):
        store.save(10, writer())
    assert store.all() == []


def test_a_bad_checkpoint_of_the_same_step_is_replaced(store):
    _flip_bit(store.save(10, writer()).path / "model.safetensors")
    store.save(10, writer())
    assert store.newest_good()[0].step == 10


def test_left_overs_of_a_crash_are_ignored_and_swept(store, tmp_path):
    (tmp_path / ".saving-00000010-1-99").mkdir()
    (tmp_path / ".trash-step-00000005-99").mkdir()
    assert store.all() == []
    store.save(20, writer())
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000020"]


def test_the_newest_and_the_best_are_kept(store):
    for step, metric in ((10, 3.0), (20, 1.0), (30, 2.0), (40, 2.5), (50, None)):
        store.save(step, writer(), metric=metric)
        store.prune(keep_last=2)
    assert [item.step for item in store.all()] == [50, 40, 20]
    assert store.best().step == 20


def test_a_loss_that_is_not_finite_saves_the_state_and_rates_nothing(store):
    store.save(10, writer(), metric=float("nan"))
    assert store.newest_good()[0].manifest.metric is None
    assert store.best() is None


def test_the_best_is_only_one_that_verifies(store):
    store.save(10, writer(), metric=2.0)
    _flip_bit(store.save(20, writer(), metric=1.0).path / "model.safetensors")
    assert store.best().step == 10
    assert CheckpointStore(store.folder / "none").best() is None


def test_a_tagged_checkpoint_is_kept_until_its_tag_moves_on(store):
    for step in (1, 2, 3):
        store.save(step, writer())
        if step < 3:
            store.tag("calm", step)
        store.prune(1)
    assert ([checkpoint.step for checkpoint in store.all()], store.tags()) == ([3, 2], {"calm": 2})


@pytest.mark.parametrize("name", ["best", "last", "12", "", "../x", "a/b", ".a", "x" * 65, None, 3])
def test_a_tag_must_be_a_name_that_means_nothing_else(store, name):
    with pytest.raises(UserError, match="cannot be a tag"):
        store.tag(name, 1)
    assert store.tags() == {}


@pytest.mark.parametrize("text", ["{", "[]", '{"a": "b"}'])
def test_damaged_tags_are_no_tags(store, text):
    (store.folder / "tags.json").write_text(text)
    assert store.tags() == {}
