"""Somebody is told when a run waits because its disk is full."""

from __future__ import annotations

import pytest

from clew.notify import Notifier, TellingWatcher
from clew.runs import JournalWriter, Owner, RunInfo, State, create_run
from clew.targets.watching import Silent


class Told:
    def __init__(self) -> None:
        self.records: list[dict] = []

    def put(self, record) -> None:
        self.records.append(dict(record))

    def close(self, seconds: float) -> None:
        pass


@pytest.fixture
def run(tmp_path):
    run = create_run(tmp_path / "runs", RunInfo(id="a", job="count"), "", {})
    run.states.queue()
    for state in (State.STARTING, State.RUNNING):
        run.states.move(state, attempt=1, owner=Owner.current())
    return run


def lacks_space(run) -> None:
    journal = JournalWriter(run.path / "journal", 1)
    journal.write("disk_full", at=5, reason="no room")
    journal.close()


@pytest.mark.parametrize("label", ["a", "train"])
def test_each_pause_for_want_of_space_is_told_once(run, label):
    told, now = Told(), [10.0]
    watcher = TellingWatcher(Silent(), Notifier([told]), clock=lambda: now[0])

    def ticks() -> int:
        for _ in range(3):
            now[0] += 1.5
            watcher.tick()
        return len(told.records)

    watcher.started(label, run)
    lacks_space(run)
    assert ticks() == 0  # it has not paused yet
    run.states.move(State.PAUSED, attempt=1)
    assert ticks() == 1
    facts = {key: told.records[0].get(key) for key in ("event", "run", "job", "state", "reason", "stage")}
    assert facts == {
        "event": "waiting",
        "run": "a",
        "job": "count",
        "state": "paused",
        "reason": "the disk is full: no room",
        "stage": None if label == "a" else label,
    }
    run.states.move(State.RUNNING, attempt=1)
    lacks_space(run)
    run.states.move(State.PAUSED, attempt=1)
    assert ticks() == 2


def test_a_pause_that_somebody_asked_for_is_not_told(run):
    told = Told()
    watcher = TellingWatcher(Silent(), Notifier([told]), clock=lambda: 5.0)
    watcher.started("a", run)
    run.states.move(State.PAUSED, attempt=1)
    watcher.tick()
    assert told.records == []


def test_a_run_that_has_ended_is_not_looked_at(run):
    watcher = TellingWatcher(Silent(), Notifier([]), clock=lambda: 5.0)
    watcher.started("a", run)
    watcher.ended("a", run, State.FAILED)
    (run.path / "state.json").unlink()
    watcher.tick()
