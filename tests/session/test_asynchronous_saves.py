"""Saves that are written while the training goes on: when it waits, what is safe when, and what is told of failures."""

from __future__ import annotations

import errno
import os
import threading
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis.strategies import integers, lists

from clew.errors import NotFinite
from clew.runs import Command, Fenced, Owner, RunInfo, State, create_run
from clew.session import CheckpointConfig, LiveConfig, RunStopped, Session
from support import wait_until

PATIENCE = 20.0


class Counter:
    """Its state is a number; what writes it waits for a gate."""

    def __init__(self) -> None:
        self.value = 0
        self.gate = threading.Event()
        self.gate.set()
        self.writing = threading.Event()
        self.fails: BaseException | None = None
        self.saves: list[str] = []

    def save(self, directory: Path) -> None:
        self.saves.append(f"save {self.value}")
        self._write(self.value, directory)

    def snapshot(self):
        if self.value == 13:
            raise NotFinite("the loss is not finite")
        self.saves.append(f"snapshot {self.value}")
        return partial(self._write, self.value)

    def load(self, directory: Path) -> None:
        self.value = int((directory / "value").read_text())

    def _write(self, value: int, directory: Path) -> None:
        self.writing.set()
        assert self.gate.wait(PATIENCE)
        if self.fails is not None:
            raise self.fails
        (directory / "value").write_text(str(value))


@pytest.fixture
def run(tmp_path):
    return create_run(tmp_path / "runs", RunInfo(id="r", job="count"), "job: count\n", {})


@pytest.fixture
def counter():
    return Counter()


def start(run) -> Session:
    attempt = run.states.queue()
    run.states.move(State.STARTING, attempt=attempt)
    run.states.move(State.RUNNING, attempt=attempt, owner=Owner.current())
    return Session(run, None, attempt)


def train(session: Session, counter: Counter, until: int, **policy) -> None:
    first = session.attach(counter, CheckpointConfig(**{"every": 5, "halfway": False, **policy}), LiveConfig())
    for step in range(first + 1, until + 1):
        counter.value = step
        session.log(step, loss=1 / step)
        session.boundary(step)


def saved(run) -> list[int]:
    return sorted(int(path.name[5:]) for path in run.checkpoints.glob("step-*"))


def kinds(run, *names: str) -> list[tuple[str, int]]:
    return [(event["kind"], event.get("step", event.get("at"))) for event in run.events() if event["kind"] in names]


def test_the_training_goes_on_while_its_state_is_written_and_the_state_is_that_of_its_step(run, counter):
    with start(run) as session:
        counter.gate.clear()
        train(session, counter, 8)
        assert counter.writing.wait(PATIENCE)
        assert (counter.value, saved(run), kinds(run, "checkpoint")) == (8, [], [])
        counter.gate.set()
    assert (run.checkpoints / "step-00000005" / "value").read_text() == "5"
    assert kinds(run, "checkpoint") == [("checkpoint", 5)]
    assert counter.saves == ["snapshot 5"]


def test_a_save_that_is_due_waits_for_the_one_before(run, counter):
    """So the checkpoints of a run do not depend on the disk."""
    with start(run) as session:
        counter.gate.clear()
        trained = threading.Thread(target=train, args=(session, counter, 12), kwargs={"keep_last": 9})
        trained.start()
        assert counter.writing.wait(PATIENCE)
        wait_until(lambda: counter.value == 10)
        assert counter.saves == ["snapshot 5"]
        counter.gate.set()
        trained.join(PATIENCE)
        assert counter.value == 12
    assert saved(run) == [5, 10]


def test_at_the_end_of_a_run_everything_is_durable_and_rotated(run, counter):
    with start(run) as session:
        train(session, counter, 20)
    assert saved(run) == [15, 20]
    assert kinds(run, "checkpoint") == [("checkpoint", step) for step in (5, 10, 15, 20)]


@pytest.mark.parametrize("verb", ["checkpoint", "stop", "pause"])
def test_what_promises_a_safe_state_waits_for_it_and_does_not_save_it_twice(run, counter, verb):
    run.inbox.post(Command(verb, at=5))
    if verb == "pause":
        run.inbox.post(Command("resume", at=5))
    try:
        with start(run) as session:
            train(session, counter, 6)
    except RunStopped:
        assert verb == "stop"
    assert counter.saves == ["snapshot 5"]
    told = kinds(run, "checkpoint", "command")
    assert told.index(("checkpoint", 5)) < told.index(("command", 5))


def test_without_it_a_save_is_waited_for(run, counter):
    with start(run) as session:
        train(session, counter, 5, asynchronous=False)
        assert saved(run) == [5]
    assert counter.saves == ["save 5"]


def test_who_looks_for_checkpoints_itself_waits_first(run, counter):
    with start(run) as session:
        train(session, counter, 6)
        assert session.settled() is run
        assert saved(run) == [5]


def test_a_failure_beside_the_training_is_told_at_once_and_fails_the_run_at_the_next_boundary(run, counter):
    counter.fails = RuntimeError("the disk has gone")
    with pytest.raises(RuntimeError, match="the disk has gone"), start(run) as session:
        session.attach(counter, CheckpointConfig(every=5))
        counter.value = 5
        session.boundary(5)
        wait_until(lambda: kinds(run, "checkpoint_failed") == [("checkpoint_failed", 5)], PATIENCE)
        session.boundary(6)
    (event,) = run.events("checkpoint_failed")
    assert (event["error"], event["reason"]) == ("RuntimeError", "the disk has gone")
    assert saved(run) == []


def test_a_failure_of_the_last_save_fails_the_run_too(run, counter):
    counter.fails = OSError(errno.EIO, os.strerror(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"), start(run) as session:
        train(session, counter, 5)


def test_a_failure_is_over_when_that_very_state_was_saved_after_all(run, counter):
    counter.fails = RuntimeError("busy")
    with start(run) as session:
        session.attach(counter, CheckpointConfig(every=5))
        counter.value = 5
        session.boundary(5)
        wait_until(lambda: bool(kinds(run, "checkpoint_failed")), PATIENCE)
        counter.fails = None
        session.checkpoint(5)
        session.boundary(6)
    assert saved(run) == [5]


def test_a_replaced_attempt_that_writes_commits_nothing_and_ends(run, counter):
    with pytest.raises(Fenced), start(run) as session:
        session.attach(counter, CheckpointConfig(every=5))
        counter.value = 5
        counter.gate.clear()
        session.boundary(5)
        assert counter.writing.wait(PATIENCE)
        run.states.move(State.INTERRUPTED, attempt=1)
        run.states.queue()
        counter.gate.set()
        session.boundary(10)
    assert saved(run) == []


def test_a_loss_that_is_not_finite_is_found_before_anything_is_written(run, counter):
    with pytest.raises(NotFinite), start(run) as session:
        train(session, counter, 13, every=13)
    assert list(run.checkpoints.iterdir()) == []


@pytest.mark.parametrize(
    ("every", "until", "due"),
    [(5, 13, [2, 5, 7, 10, 12]), (2, 5, [1, 2, 3, 4, 5]), (4, 9, [2, 4, 6, 8])],
)
def test_a_state_is_saved_halfway_as_well_and_that_one_stays_until_the_next_is_safe(run, counter, every, until, due):
    with start(run) as session:
        train(session, counter, until, every=every, keep_last=2, halfway=True)
    assert counter.saves == [f"snapshot {step}" for step in due]
    marks = {event["step"]: event.get("due") for event in run.events("checkpoint")}
    assert marks == {step: None if step % every == 0 else "halfway" for step in due}
    whole = [step for step in due if step % every == 0]
    assert saved(run) == sorted({*whole[-2:], due[-1]})


@settings(max_examples=40, deadline=None)
@given(
    every=integers(1, 7),
    first=integers(0, 9),
    writes=lists(integers(0, 12), min_size=30, max_size=30),
)
def test_however_long_a_write_takes_no_more_steps_than_lie_between_two_saves_are_unsafe(every, first, writes):
    """A write takes so many steps of the training, or as long as the training waits for it."""
    with TemporaryDirectory() as folder:
        run = create_run(Path(folder) / "runs", RunInfo(id="r", job="count"), "job: count\n", {})
        slow, unsafe = Slow(writes), []
        with start(run) as session:
            session._saver.finish = partial(slow.waited_for, session._saver.finish)
            session.attach(slow, CheckpointConfig(every=every, keep_last=1))
            if first:
                slow.stand_at(first)
                session.checkpoint(first)
            for step in range(first + 1, first + 25):
                slow.stand_at(step)  # killed here, it goes on from what is there
                unsafe.append(step - max(saved(run), default=0))
                session.boundary(step)
    assert max(unsafe) <= every


def test_where_every_step_must_be_safe_each_save_is_waited_for(run, counter):
    with start(run) as session:
        train(session, counter, 3, every=1, halfway=True)
        assert saved(run) == [2, 3]
    assert counter.saves == ["save 1", "save 2", "save 3"]


def test_a_state_that_was_saved_halfway_and_is_asked_for_stays_like_any_other(run, counter):
    run.inbox.post(Command("checkpoint", at=7))
    with start(run) as session:
        train(session, counter, 10, every=5, halfway=True)
    assert saved(run) == [7, 10]
    assert counter.saves == ["snapshot 2", "snapshot 5", "snapshot 7", "snapshot 10"]


def test_the_best_state_and_a_tagged_one_stay_though_they_were_saved_halfway(run, counter):
    run.inbox.post(Command("checkpoint", {"tag": "good"}, at=7))
    with start(run) as session:
        session.attach(counter, CheckpointConfig(every=5, keep_last=1))
        for step in range(1, 21):
            counter.value = step
            session.boundary(step, metric=0.5 if step == 12 else None)
    assert saved(run) == [7, 12, 20]


def test_by_time_a_state_is_saved_halfway_as_well(run, counter, monkeypatch):
    clock = Clock()
    with start(run) as session:
        monkeypatch.setattr(session._saver, "_clock", clock)
        session._saver._began = 0.0
        session.attach(counter, CheckpointConfig(every=None, minutes=10.0, keep_last=9))
        for step in range(1, 15):
            counter.value = step
            clock.now += 150
            session.boundary(step)
    assert counter.saves == [f"snapshot {step}" for step in (2, 4, 6, 8, 10, 12, 14)]
    assert saved(run) == [4, 8, 12, 14]


class Slow:
    """Its state is a number; a write takes so many steps of the training, or until somebody waits for it."""

    def __init__(self, writes: list[int]) -> None:
        self._writes = writes
        self._value = 0
        self._is_waited_for = False
        self._changed = threading.Condition()

    def stand_at(self, step: int) -> None:
        with self._changed:
            self._value = step
            self._changed.notify_all()

    def waited_for(self, finish) -> None:
        with self._changed:
            self._is_waited_for = True
            self._changed.notify_all()
        finish()
        self._is_waited_for = False

    def save(self, directory: Path) -> None:
        (directory / "value").write_text(str(self._value))

    def snapshot(self):
        return partial(self._write, self._value)

    def load(self, directory: Path) -> None:
        self._value = int((directory / "value").read_text())

    def _write(self, value: int, directory: Path) -> None:
        until = value + self._writes[value % len(self._writes)]
        with self._changed:
            assert self._changed.wait_for(lambda: self._is_waited_for or self._value >= until, PATIENCE)
        (directory / "value").write_text(str(value))


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({"every": None, "minutes": 10.0}, [4, 8, 12]),
        ({"every": 5, "minutes": 10.0}, [4, 5, 9, 10]),
        ({"every": None}, []),
        ({"every": 6, "minutes": 60.0}, [6, 12]),
        ({"every": None, "minutes": 10.0, "asynchronous": False}, [4, 8, 12]),
    ],
)
def test_saves_are_due_by_steps_and_by_time(run, counter, policy, expected, monkeypatch):
    clock = Clock()
    with start(run) as session:
        monkeypatch.setattr(session._saver, "_clock", clock)
        session._saver._began = 0.0
        session.attach(counter, CheckpointConfig(keep_last=9, **{"halfway": False, **policy}))
        for step in range(1, 13):
            counter.value = step
            clock.now += 150
            session.boundary(step)
    assert saved(run) == expected
    told = {event["step"]: event.get("due") for event in run.events("checkpoint")}
    assert all((due == "minutes") == (step % (policy["every"] or 99) != 0) for step, due in told.items())


@pytest.mark.parametrize(("asynchronous", "step"), [(True, 11), (False, 10)])
def test_a_state_that_finds_no_room_waits_in_memory_until_the_run_is_resumed(run, counter, asynchronous, step):
    room = [10**9]

    def make_room() -> None:
        wait_until(lambda: run.state is State.PAUSED, PATIENCE)
        room[0] = 10**9
        run.inbox.send("resume")

    with start(run) as session:
        session._saver.store._free = lambda folder: room[0]
        session.attach(counter, CheckpointConfig(every=5, asynchronous=asynchronous, halfway=False))
        counter.value = 5
        session.boundary(5)
        assert session.settled().id == "r"
        room[0] = 0
        beside = threading.Thread(target=make_room)
        beside.start()
        for number in range(10, step + 1):
            counter.value = number
            session.boundary(number)
            wait_until(lambda: session._saver.has_failed() or not asynchronous or bool(kinds(run, "paused")), PATIENCE)
        beside.join(PATIENCE)
    assert saved(run) == [5, step]
    assert kinds(run, "disk_full", "paused", "resumed") == [("disk_full", step), ("paused", step), ("resumed", step)]
    (command, *_) = run.events("command")
    assert (command["verb"], command["issuer"], command["outcome"]) == ("pause", "disk", "applied")


def test_without_any_checkpoint_there_is_nothing_to_wait_with(run, counter):
    counter.fails = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(OSError, match="No space left"), start(run) as session:
        train(session, counter, 10, asynchronous=False)
    assert run.state is not State.PAUSED


def test_an_interrupted_run_without_room_keeps_the_checkpoint_before(run, counter, monkeypatch):
    with pytest.raises(RunStopped, match="interrupted at step 7"), start(run) as session:
        train(session, counter, 5)
        session.settled()
        session._saver.store._free = lambda folder: 0
        counter.value = 7
        monkeypatch.setattr(session._signals, "received", "SIGTERM")
        session.boundary(7)
    assert saved(run) == [5]


def test_a_run_that_was_killed_while_it_waited_for_room_does_not_come_back_paused(run, counter):
    """A pause that somebody asked for does; this one is about a disk, at which the next attempt looks itself."""

    class Killed(BaseException):
        pass

    with pytest.raises(Killed), start(run) as session:
        train(session, counter, 5)
        session.settled()
        session._saver.store._free = lambda folder: 0
        session._saver.policy = CheckpointConfig(every=7, asynchronous=False)

        def killed() -> bool:
            if session._steering.ledger.standing.pause_at == 7:
                raise Killed
            return False

        session._ends = killed
        counter.value = 7
        session.boundary(7)
    run.states.move(State.INTERRUPTED, attempt=1)
    with start(run) as session:
        train(session, counter, 10)
    assert saved(run) == [5, 10]
    assert kinds(run, "disk_full") == [("disk_full", 7)]


@pytest.mark.parametrize("boundary", [10, 11, None])
def test_a_save_that_a_job_asks_for_waits_for_room_at_the_next_boundary_or_fails_at_the_end(run, counter, boundary):
    def make_room(session: Session) -> None:
        wait_until(lambda: run.state is State.PAUSED, PATIENCE)
        session._saver.store._free = lambda folder: 10**9
        run.inbox.send("resume")

    def body() -> None:
        with start(run) as session:
            train(session, counter, 5)
            session.settled()
            session._saver.store._free = lambda folder: 0
            counter.value = 10
            session.checkpoint(10, metric=0.5)
            if boundary:
                beside = threading.Thread(target=make_room, args=(session,))
                beside.start()
                counter.value = boundary
                session.boundary(boundary)
                beside.join(PATIENCE)

    if not boundary:
        with pytest.raises(OSError, match="0 are free"):
            body()
        assert saved(run) == [5]
        return
    body()
    assert saved(run) == [5, boundary]
    assert (run.checkpoints / f"step-{boundary:08d}" / "value").read_text() == str(boundary)
    assert [event["metric"] for event in run.events("checkpoint")] == [None, 0.5 if boundary == 10 else None]
    assert kinds(run, "disk_full", "paused") == [("disk_full", 10), ("paused", boundary)]
