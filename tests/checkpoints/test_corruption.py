"""Everything that can become of a checkpoint's files, for each kind of file: all of it is found, and named."""

from __future__ import annotations

import shutil
from itertools import combinations
from pathlib import Path

import damage
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clew.checkpoints import CheckpointStore, manifest
from clew.checkpoints.manifest import MANIFEST
from clew.runs import JournalWriter, RunInfo, create_run
from clew.session.saving import Saver

RELEASE = Path(__file__).parents[1] / "fixtures" / "runs" / "0.1.0" / "checkpoints" / "step-00000008"
KINDS = {
    "tensors": "trainer.safetensors",
    "tree": "trainer.json",
    "model": "model/model.safetensors",
    "config": "model/config.json",
    "tokenizer": "model/tokenizer.json",
    "session": "session.json",
    "manifest": MANIFEST,
}


def write(folder: Path, mark: str = "") -> None:
    """A real state, with what a session keeps beside it."""
    shutil.copytree(RELEASE, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MANIFEST))
    (folder / "session.json").write_text(f'{{\n  "settings": {{"lr": 0.001}},\n  "contained": ["{mark}"]\n}}\n')


def two(folder: Path) -> CheckpointStore:
    """A store with a checkpoint at step 10 and one at step 20."""
    folder.mkdir(exist_ok=True)
    store = CheckpointStore(folder, attempt=1)
    for step in (10, 20):
        store.save(step, lambda staging, step=step: write(staging, str(step)), metric=2.5)
    return store


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    return two(tmp_path_factory.mktemp("pristine") / "checkpoints").folder


@pytest.fixture
def store(pristine, tmp_path):
    return CheckpointStore(shutil.copytree(pristine, tmp_path / "run" / "checkpoints"))


def newest(store: CheckpointStore) -> Path:
    return store.folder / "step-00000020"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", damage.ALL)
def test_damage_to_any_kind_of_file_is_found_and_named_and_the_one_before_is_used(kind, what, store):
    damage.ALL[what](newest(store) / KINDS[kind])
    good, bad = store.newest_good()
    assert good.step == 10
    assert Path(KINDS[kind]).name in bad[20], bad


@pytest.mark.parametrize("pair", [*combinations(KINDS, 2)], ids="-".join)
def test_two_files_that_took_each_others_place_are_found(pair, store):
    one, other = (newest(store) / KINDS[kind] for kind in pair)
    aside = one.with_name("aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)
    assert store.newest_good()[0].step == 10
    assert any(KINDS[kind] in store.newest_good()[1][20] for kind in pair)


@pytest.mark.parametrize("kind", ["session", "manifest"])
def test_a_file_of_an_earlier_checkpoint_is_found(kind, store):
    """What is the same in both, such as the config of a model, is no damage."""
    shutil.copy(store.folder / "step-00000010" / KINDS[kind], newest(store) / KINDS[kind])
    good, bad = store.newest_good()
    assert good.step == 10
    assert KINDS[kind] in bad[20]


def test_a_checkpoint_under_the_name_of_another_step_is_found(store):
    newest(store).rename(store.folder / "step-00000030")
    assert store.newest_good()[1] == {30: "manifest.json belongs to step 20"}


def test_a_sector_that_cannot_be_read_is_named(store, monkeypatch):
    def fails(path):
        raise OSError(5, "Input/output error")

    monkeypatch.setitem(manifest._HASHES, "xxh3", fails)
    assert store.newest_good()[1][20] == "model/config.json cannot be read: Input/output error"


@settings(deadline=None)
@given(data=st.data())
def test_any_change_of_any_bytes_is_found(pristine, data):
    name = data.draw(st.sampled_from(sorted(KINDS.values())))
    path = pristine / "step-00000020" / name
    before = path.read_bytes()
    begin = data.draw(st.integers(0, len(before)))
    end = data.draw(st.integers(begin, min(len(before), begin + 9)))
    put = data.draw(st.binary(max_size=9).filter(lambda put: put != before[begin:end]))
    try:
        path.write_bytes(before[:begin] + put + before[end:])
        problem = CheckpointStore(pristine).all()[0].problem()
    finally:
        path.write_bytes(before)
    assert Path(name).name in problem


@settings(deadline=None)
@given(text=st.sampled_from([" ", "\n", "\t", "\r\n"]), position=st.integers(0, 400))
def test_not_even_a_blank_can_be_put_into_a_manifest(pristine, text, position):
    path = pristine / "step-00000020" / MANIFEST
    before = path.read_bytes()
    try:
        path.write_bytes(before[:position] + text.encode() + before[position:])
        assert CheckpointStore(pristine).all()[0].problem() == "manifest.json is missing or damaged"
    finally:
        path.write_bytes(before)


def test_with_all_of_them_damaged_there_is_none_and_each_is_named(store):
    for checkpoint in store.all():
        damage.zeroed_page(checkpoint.path / "trainer.safetensors")
    good, bad = store.newest_good()
    assert good is None
    assert set(bad) == {10, 20}


def test_what_was_passed_over_is_said_in_the_log_and_in_the_journal(tmp_path, pristine, caplog):
    run = create_run(tmp_path, RunInfo(id="a", job="x"), "", {})
    shutil.copytree(pristine, run.checkpoints, dirs_exist_ok=True)
    damage.flipped(0.5)(run.checkpoints / "step-00000020" / "trainer.safetensors")
    journal = JournalWriter(run.path / "journal", 1)
    saver = Saver(run, 1, journal, lambda step: {})
    assert saver.newest().step == 10
    saver.close()
    journal.close()
    (event,) = run.events("checkpoint_bad")
    assert (event["at"], event["problem"]) == (20, "trainer.safetensors does not match its hash")
    assert "checkpoint step 20 cannot be used: trainer.safetensors does not match its hash" in caplog.text


def test_a_link_cannot_get_into_a_checkpoint(tmp_path):
    with pytest.raises(ValueError, match="cannot hold weights, which is a symbolic link"):
        CheckpointStore(tmp_path).save(1, lambda folder: (folder / "weights").symlink_to(RELEASE / MANIFEST))
    assert list(tmp_path.iterdir()) == []
