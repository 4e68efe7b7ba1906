"""Kill a process before its k-th call to the file system, for every k, and look at what is left."""

import os
import signal
import sys
from pathlib import Path

import pytest

from clew.checkpoints import CheckpointStore
from clew.runs import JournalWriter, RunInfo, State, Workspace, create_run, read_events

CALLS = ("fsync", "rename", "replace", "mkdir", "unlink", "rmdir")

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks")


def dies_at(number, body):
    """Run ``body`` in a fork that is killed before its ``number``-th call; say whether it got to its end."""
    child = os.fork()
    if child == 0:
        left = number

        def counted(call):
            def wrapper(*args, **kwargs):
                nonlocal left
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(*args, **kwargs)

            return wrapper

        for name in CALLS:
            setattr(os, name, counted(getattr(os, name)))
        try:
            body()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return not os.WIFSIGNALED(status)


def every_crash(body, prepare, verify):
    """Enumerate crash points until the body survives; returns how many there were."""
    for number in range(1, 200):
        prepare(number)
        survived = dies_at(number, lambda number=number: body(number))
        verify(number, survived)
        if survived:
            return number - 1
    raise AssertionError("the body never ends")


def write(text):
    def writer(folder: Path):
        (folder / "weights").write_text(text * 1000)
        (folder / "nested").mkdir()
        (folder / "nested" / "state").write_text(text)

    return writer


def test_a_crash_anywhere_in_a_save_leaves_the_old_or_the_new_checkpoint(tmp_path):
    def store(number):
        return CheckpointStore(tmp_path / str(number), attempt=1)

    def prepare(number):
        (tmp_path / str(number)).mkdir()
        store(number).save(10, write("old"))

    def verify(number, survived):
        good, bad = store(number).newest_good()
        assert bad == {}
        assert good.step == 20 if survived else good.step in (10, 20)
        # The run goes on after the crash: the next save works and sweeps what was left behind.
        store(number).save(30, write("next"))
        assert store(number).newest_good()[0].step == 30
        assert {path.name[:5] for path in (tmp_path / str(number)).iterdir()} == {"step-"}

    points = every_crash(lambda number: store(number).save(20, write("new")), prepare, verify)
    assert points >= 8


def test_a_crash_anywhere_in_a_rotation_never_takes_the_newest(tmp_path):
    def store(number):
        return CheckpointStore(tmp_path / str(number), attempt=1)

    def prepare(number):
        (tmp_path / str(number)).mkdir()
        for step in (10, 20, 30):
            store(number).save(step, write("x"))

    def verify(number, survived):
        good, bad = store(number).newest_good()
        assert (good.step, bad) == (30, {})

    assert every_crash(lambda number: store(number).prune(1), prepare, verify) >= 4


def test_a_crash_anywhere_in_a_state_change_leaves_one_of_both_states(tmp_path):
    def run(number):
        return Workspace(tmp_path).find_run(f"r{number}")

    def prepare(number):
        create_run(tmp_path / "runs", RunInfo(id=f"r{number}", job="x"), "", {})

    def body(number):
        attempt = run(number).states.queue()
        run(number).states.move(State.STARTING, attempt=attempt)
        run(number).states.move(State.FAILED, attempt=attempt)

    def verify(number, survived):
        now = run(number).states.read()
        assert now.state in {State.CREATED, State.QUEUED, State.STARTING, State.FAILED}
        assert run(number).states.queue() == now.attempt + 1

    assert every_crash(body, prepare, verify) >= 6


def test_a_crash_anywhere_in_a_creation_leaves_a_run_or_none(tmp_path):
    workspace = Workspace(tmp_path)

    def create(number):
        return create_run(workspace.runs, RunInfo(id=f"r{number}", job="x"), "job: x\n", {})

    def verify(number, survived):
        known = {run.id for run in workspace.list_runs()}
        if f"r{number}" not in known:
            create(number)
        assert workspace.find_run(f"r{number}").state is State.CREATED

    assert every_crash(create, lambda number: None, verify) >= 8


def test_a_crash_after_a_synced_event_keeps_it(tmp_path):
    def body(number):
        journal = JournalWriter(tmp_path, number)
        journal.write("note", text="kept")
        journal.flush(sync=True)
        journal.write("note", text="perhaps")
        journal.close()

    def verify(number, survived):
        texts = [event["text"] for event in read_events(tmp_path) if event["attempt"] == number]
        if number > 2:  # after the sync of the folder, and that of the event
            assert texts[0] == "kept"

    assert every_crash(body, lambda number: None, verify) == 3
