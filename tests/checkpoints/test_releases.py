"""Run directories of each release open in this version: a directory below ``tests/fixtures/runs`` for each."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from clew.checkpoints import CheckpointStore
from clew.runs import State, Workspace
from clew.targets import LocalTarget
from clew.targets.watching import Silent, follow

RELEASES = Path(__file__).parents[1] / "fixtures" / "runs"


@pytest.fixture(params=sorted(path.name for path in RELEASES.iterdir()))
def run(request, tmp_path):
    shutil.copytree(RELEASES / request.param, tmp_path / "runs" / "kept")
    return Workspace(tmp_path).find_run("kept")


def test_its_checkpoints_verify(run):
    store = CheckpointStore(run.checkpoints)
    assert [one.step for one in store.all()] == [8, 4]
    assert {one.problem() for one in store.all()} == {""}
    assert store.best().manifest.metric < 6
    assert (run.state, run.result.status) == (State.STOPPED, "stopped")


@pytest.mark.parametrize("name", ["trainer.safetensors", "trainer.json", "model/config.json"])
def test_damage_to_its_checkpoints_is_found(run, name):
    path = run.checkpoints / "step-00000008" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    good, bad = CheckpointStore(run.checkpoints).newest_good()
    assert (good.step, bad) == (4, {8: f"{name} does not match its hash"})


@pytest.mark.slow
def test_it_goes_on_to_its_end(run):
    assert follow(LocalTarget().launch(run), Silent()) is State.COMPLETED, run.result.failure
    assert [event["step"] for event in run.events("restore")] == [0, 8]
    assert [event["step"] for event in run.events("metric") if "loss" in event["values"]] == list(range(1, 13))
    newest = CheckpointStore(run.checkpoints).newest_good()[0]
    assert newest.step == 12
    assert all("xxh3" in entry for entry in newest.manifest.files.values())
