"""A disk that fills up while a run works: real, on a file system of a few megabytes."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
from disk_jobs import __file__ as JOBS
from disk_jobs import fill

from clew.checkpoints import CheckpointStore
from clew.cli.main import main
from clew.jobs import create_job_run, load_job
from clew.runs import Run, State, Workspace
from clew.runs.disk import Reserve, explained, is_full
from clew.session.live import LiveRun
from clew.targets import LocalTarget
from clew.targets.watching import Silent, follow
from support import wait_until

pytestmark = pytest.mark.slow

VALUE = sum(range(21))


@pytest.fixture
def disk(tmp_path):
    """A file system of 4 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root can mount a file system")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", place], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield place
    for run in Workspace(place).list_runs():  # one that still waits for space would do so for ever
        owner = run.states.read().owner
        if owner is not None and owner.is_alive():
            os.kill(owner.pid, signal.SIGKILL)
    subprocess.run(["umount", "--lazy", place], check=True)


def submit(disk: Path, place: str) -> Run:
    return create_job_run(Workspace(disk), load_job({"job": f"{JOBS}:count", "name": "a", "place": place}))


def carry_out(run: Run) -> State:
    return follow(LocalTarget().launch(run), Silent())


@pytest.mark.parametrize("place", ["journal", "artifact", "result"])
def test_a_run_on_a_full_disk_says_so_keeps_what_it_has_and_goes_on_with_space(place, disk):
    run = submit(disk, place)
    state = carry_out(run)
    if place == "result":  # what was kept for the end is enough for it
        assert (state, run.result.metrics["value"]) == (State.COMPLETED, VALUE)
        return
    assert state is State.FAILED
    assert run.result.failure.reason.startswith("the disk is full ("), run.result.failure
    assert run.states.read().reason == run.result.failure.reason
    checkpoint, bad = CheckpointStore(run.checkpoints).newest_good()
    assert (checkpoint.step, bad) == (20 if place == "artifact" else 5, {})
    assert [event["step"] for event in run.events("metric")][:5] == [1, 2, 3, 4, 5]
    assert list(run.artifacts.iterdir()) == []

    (disk / "filler").unlink()
    assert carry_out(run) is State.COMPLETED
    assert run.result.metrics["value"] == VALUE
    assert [event["step"] for event in run.events("metric")] == list(range(1, 21))
    assert not (run.path / ".reserve").exists()


def paused(run: Run, times: int) -> bool:
    return run.state is State.PAUSED and len([*run.events("disk_full")]) == times


def test_a_run_whose_checkpoint_has_no_room_pauses_and_goes_on_in_the_same_process_with_space(disk):
    run = submit(disk, "checkpoint")
    worker = LocalTarget().launch(run)
    wait_until(lambda: paused(run, 1))
    (event,) = run.events("disk_full")
    assert event["at"] == 10
    assert "bytes, and 0 are free" in event["reason"]
    store = CheckpointStore(run.checkpoints)
    assert ([one.step for one in store.all()], store.newest_good()[0].step) == ([5], 5)
    assert [path.name for path in run.checkpoints.iterdir()] == ["step-00000005"]

    (disk / "filler").unlink()
    LiveRun(run).resume()
    assert follow(worker, Silent()) is State.COMPLETED, run.result.failure
    assert (run.result.metrics["value"], run.result.attempts) == (VALUE, 1)
    assert [event["step"] for event in run.events("metric")] == list(range(1, 21))
    assert [event["step"] for event in run.events("checkpoint")] == [5, 10, 15, 20]
    assert not (run.path / ".reserve").exists()


def test_a_run_that_is_let_go_on_too_early_pauses_again_and_loses_nothing_when_it_is_killed(disk):
    run = submit(disk, "checkpoint")
    worker = LocalTarget().launch(run)
    wait_until(lambda: paused(run, 1))
    LiveRun(run).resume()
    wait_until(lambda: paused(run, 2))
    os.kill(run.states.read().owner.pid, signal.SIGKILL)
    assert follow(worker, Silent()) is State.INTERRUPTED
    (disk / "filler").unlink()
    assert carry_out(run) is State.COMPLETED
    assert run.result.metrics["value"] == VALUE


def test_a_run_whose_end_cannot_even_be_written_is_interrupted_and_goes_on_with_space(disk, caplog):
    run = submit(disk, "state")
    assert carry_out(run) is State.INTERRUPTED
    assert "the end of a cannot be written: the disk is full" in caplog.text
    assert run.result is None
    (disk / "filler").unlink()
    assert carry_out(run) is State.COMPLETED
    assert run.result.metrics["value"] == VALUE


def test_nothing_can_be_started_on_a_full_disk_and_that_is_said(disk, capsys):
    run = submit(disk, "journal")
    fill(disk)
    before = run.states.read()
    assert main(["--workspace", str(disk), "resume", "a"]) == 2
    said = capsys.readouterr().err
    assert "the disk is full\n  make space and try again; what was saved is safe\n" in said
    assert run.states.read() == before
    with pytest.raises(Exception, match="No space left on device"):
        create_job_run(Workspace(disk), load_job({"job": f"{JOBS}:count", "name": "b"}))
    assert not (disk / "runs/b").exists()


def test_a_full_disk_is_known_by_its_cause():
    full = OSError(28, os.strerror(28))
    wrapped = RuntimeError("it could not be saved")
    wrapped.__cause__ = full
    assert all(is_full(error) for error in (full, wrapped, RuntimeError("I/O error: No space left on device")))
    assert not is_full(OSError(2, os.strerror(2)))


def test_what_the_libraries_say_of_a_full_disk_is_understood(disk):
    import torch
    from safetensors.torch import save_file

    for save, name in ((save_file, "x.safetensors"), (torch.save, "x.pt")):
        with pytest.raises(Exception) as caught:
            save({"weights": torch.zeros(2_000_000)}, disk / name)
        assert "the disk is full (" in explained(caught.value, str(caught.value))
        (disk / name).unlink(missing_ok=True)


def test_the_reserve_is_real_space(disk):
    Reserve(disk).take()
    fill(disk)
    with pytest.raises(OSError, match="No space left"):
        (disk / "x").write_bytes(bytes(4096))
    Reserve(disk).give_up()
    (disk / "x").write_bytes(bytes(100_000))
