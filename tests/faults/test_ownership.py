"""Of a run there is one owner: whoever is replaced writes nothing any more, however late it wakes up."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from enumeration import ALL, NEVER
from shimmed import EVERY, Fault, Mode

from clew.checkpoints import CheckpointStore
from clew.cli.main import main
from clew.runs import Fenced, IllegalMove, Owner, Run, RunInfo, State, StateFile, Workspace, create_run
from clew.runs.states import LEASE_SECONDS
from clew.session.lease import LeaseKeeper
from clew.targets import LocalTarget
from clew.targets.watching import Silent, follow
from clew.worker import work
from support import tiny_run, wait_until

pytestmark = pytest.mark.slow


class Clock:
    """Unix seconds that jump where they are told to."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def running(folder: Path, states: StateFile) -> int:
    if not states.path.exists():
        states.create()
    attempt = states.queue()
    for state in (State.STARTING, State.RUNNING):
        states.move(state, attempt=attempt)
    return attempt


def move_elsewhere(states: StateFile) -> None:
    """Let the owner be a process of another machine, of which only the lease tells anything."""
    value = states.read().to_json()
    value["owner"]["host"] = "another-host"
    states.path.write_text(json.dumps(value))


# Two at once.


def _resume(folder, barrier, results):
    barrier.wait(timeout=60)
    states = StateFile(folder)
    try:
        results.put(states.queue())
        barrier.wait(timeout=60)  # a winner stays alive until all have tried
    except IllegalMove:
        results.put(None)
        barrier.wait(timeout=60)


@pytest.mark.parametrize("state", [State.CREATED, State.STOPPED, State.INTERRUPTED])
def test_of_two_that_resume_at_once_exactly_one_wins_each_time(tmp_path, state):
    context = multiprocessing.get_context("fork")
    for number in range(200 if ALL else 20):
        folder = tmp_path / str(number)
        folder.mkdir()
        states = StateFile(folder)
        states.create()
        if state is not State.CREATED:
            attempt = running(folder, states)
            states.move(state, attempt=attempt)
        before = states.read().attempt
        barrier, results = context.Barrier(2), context.Queue()
        both = [context.Process(target=_resume, args=(folder, barrier, results)) for _ in range(2)]
        for one in both:
            one.start()
        won = [results.get(timeout=60) for _ in both]
        for one in both:
            one.join(timeout=60)
        assert sorted(won, key=str) == sorted([None, before + 1], key=str), f"time {number}"
        assert states.read().attempt == before + 1


def _command(workspace, name, barrier, results):
    said = io.StringIO()
    barrier.wait(timeout=60)
    with redirect_stdout(said), redirect_stderr(said):
        code = main(["--workspace", str(workspace), "resume", name, "--detach"])
    results.put((code, said.getvalue()))


def test_of_two_commands_that_resume_a_run_at_once_one_wins_each_time_and_the_other_is_told(tmp_path):
    """The commands are carried out by processes that have imported everything, so that they meet."""
    context = multiprocessing.get_context("fork")
    for number in range(200 if ALL else 3):
        run = tiny_run(Workspace(tmp_path), name=f"a{number}", until=7)
        barrier, results = context.Barrier(2), context.Queue()
        both = [context.Process(target=_command, args=(tmp_path, run.id, barrier, results)) for _ in range(2)]
        for one in both:
            one.start()
        codes, said = zip(*(results.get(timeout=60) for _ in both), strict=True)
        for one in both:
            one.join(timeout=60)
        winners = [text for text in said if "started, attempt 1" in text]
        assert (len(winners), min(codes), max(codes) in (0, 2)) == (1, 0, True), said
        wait_until(lambda run=run: run.state is State.COMPLETED)
        assert run.states.read().attempt == 1
        assert [path.name for path in (run.path / "journal").iterdir()] == ["1-0.jsonl"]
        assert [event["step"] for event in run.events("metric")] == list(range(1, 8))


def test_of_two_commands_of_a_shell_that_resume_at_once_one_wins_and_the_other_is_told(tmp_path):
    run = tiny_run(Workspace(tmp_path), name="a", until=40, pause=0.02)
    words = [sys.executable, "-m", "clew.cli.main", "--workspace", str(tmp_path), "resume", run.id, "--detach"]
    both = [subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(2)]
    said = [one.communicate(timeout=120)[0] for one in both]
    assert sum("started, attempt 1" in text for text in said) == 1, said
    wait_until(lambda: run.state is State.COMPLETED)
    assert run.states.read().attempt == 1
    assert [event["step"] for event in run.events("metric")] == list(range(1, 41))


# An owner that slept.


def test_an_owner_that_slept_through_its_lease_is_refused_and_leaves_with_a_clear_line(tmp_path):
    run = tiny_run(Workspace(tmp_path), name="a", until=2000, every=5, pause=0.005)
    attempt = run.states.queue()
    run.states.move(State.STARTING, attempt=attempt)
    log = tmp_path / "said"
    with log.open("wb") as said:
        words = [sys.executable, "-m", "clew.worker", str(run.path), str(attempt)]
        sleeper = subprocess.Popen(words, stdout=said, stderr=said)
    store = CheckpointStore(run.checkpoints)
    wait_until(lambda: len(store.all()) == 2)
    os.kill(sleeper.pid, signal.SIGSTOP)
    move_elsewhere(run.states)
    late = StateFile(run.path, clock=lambda: time.time() + LEASE_SECONDS + 1)
    with pytest.raises(IllegalMove):
        late.queue()  # nobody takes a run by accident
    assert late.queue(take_over=True) == attempt + 1
    run.states.move(State.STARTING, attempt=attempt + 1)
    run.states.move(State.RUNNING, attempt=attempt + 1, owner=Owner.current())
    before = {one.step for one in store.all()}
    os.kill(sleeper.pid, signal.SIGCONT)
    assert sleeper.wait(timeout=60) == 5
    assert f"attempt {attempt} was replaced by attempt {attempt + 1}; nothing was written" in log.read_text()
    assert {one.step for one in store.all()} == before
    assert (run.states.read().state, run.states.read().attempt) == (State.RUNNING, attempt + 1)
    assert run.result is None
    run.states.move(State.FAILED, attempt=attempt + 1)
    # The next attempt goes on from what is safe, to the same end.
    run.config_path.write_text(run.config_path.read_text().replace("until: 2000", "until: 12"))
    number = run.states.queue()
    run.states.move(State.STARTING, attempt=number)
    assert work(run, number) == 0


def test_wherever_an_owner_is_stopped_in_a_save_it_commits_before_it_is_replaced_or_not_at_all(bench, scratch):
    """It is stopped before each of its calls, replaced meanwhile, and let go on."""
    stopped = Fault(Mode.HALT, EVERY)
    place, seen = scratch / "owned", set()
    calls = bench.zygote.run("owned", _made(place / "whole").path.parents[1], stopped, NEVER).count
    for number in range(1, calls + 1) if ALL else range(calls - 7, calls + 1):
        run = _made(place / str(number))
        replaced: list[int] = []

        def replace_it(pid: int, run: Run = run, replaced: list[int] = replaced) -> None:
            owner = Owner.of(pid)
            wait_until(lambda: not owner.is_alive() or _is_stopped(pid))
            if not owner.is_alive():
                return
            now = run.states.read()
            if now.state is State.RUNNING:
                move_elsewhere(run.states)
                late = StateFile(run.path, clock=lambda: time.time() + LEASE_SECONDS + 1)
                _within(lambda: replaced.append(late.queue(take_over=True)), pid)
                replaced.append(len(CheckpointStore(run.checkpoints).all()))
            with suppress(ProcessLookupError):  # it may have been let go on, and have ended
                os.kill(pid, signal.SIGCONT)

        bench.zygote.run("owned", place / str(number), stopped, number, meanwhile=replace_it)
        there = CheckpointStore(run.checkpoints)
        assert there.newest_good()[1] == {}
        if replaced:
            attempt, saved = replaced
            assert attempt == 2
            assert len(there.all()) == saved, f"call {number}: nothing is committed after it was replaced"
            assert run.states.read().attempt == 2
        seen.add((bool(replaced), len(there.all())))
    assert {(True, 0), (True, 1)} <= seen, "both before and after the commit"


def _made(root: Path) -> Run:
    root.mkdir(parents=True)
    return create_run(root / "runs", RunInfo(id="a", job="x"), "job: x\n", {})


def _is_stopped(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except OSError:
        return False


def _within(body, pid: int) -> None:
    """Do something that may need the stopped process to go on first: it may hold the lock, of one rename."""
    thread = threading.Thread(target=body)
    thread.start()
    thread.join(0.3)
    if thread.is_alive():
        os.kill(pid, signal.SIGCONT)
        thread.join(60)
    assert not thread.is_alive()


def test_of_two_writers_only_the_newer_one_moves_the_state(tmp_path):
    states = StateFile(tmp_path)
    first = running(tmp_path, states)
    states.move(State.INTERRUPTED, attempt=first)
    second = running(tmp_path, states)
    for refused in (
        lambda: states.move(State.COMPLETED, attempt=first),
        lambda: states.renew(first),
        lambda: states.check(first),
        lambda: states.holding(first).__enter__(),
    ):
        with pytest.raises(Fenced, match=f"attempt {first} was replaced by attempt {second}; nothing was written"):
            refused()
    with states.holding(second):
        pass
    assert states.read().state is State.RUNNING


# Clocks.


def test_a_clock_that_jumps_never_costs_a_run_on_this_machine_its_owner(tmp_path):
    clock = Clock()
    states = StateFile(tmp_path, clock=clock)
    attempt = running(tmp_path, states)
    for jump in (1e6, -3e6, 1e9):
        clock.now += jump
        assert states.read().observed(clock.now) is State.RUNNING
        with pytest.raises(IllegalMove):
            states.queue(take_over=True)
        states.renew(attempt)
        assert states.read().lease_until == clock.now + LEASE_SECONDS


def test_a_clock_of_another_machine_that_is_ahead_makes_a_run_unknown_only_until_its_lease_is_renewed(tmp_path):
    clock = Clock()
    states = StateFile(tmp_path, clock=clock, lease=10.0)
    attempt = running(tmp_path, states)
    move_elsewhere(states)
    observed = lambda late: states.read().observed(clock.now + late)  # noqa: E731
    assert (observed(9.9), observed(10.1)) == (State.RUNNING, State.UNKNOWN)
    clock.now -= 3600  # the owner's clock is put back: the lease is as long as ever from there on
    states.renew(attempt)
    assert (observed(9.9), observed(10.1)) == (State.RUNNING, State.UNKNOWN)
    assert replace(states.read(), lease_until=None).observed(clock.now + 1e9) is State.RUNNING


def test_a_lease_is_renewed_in_time_whatever_the_clock_of_the_machine_does(tmp_path):
    clock = Clock()
    states = StateFile(tmp_path, clock=clock, lease=10.0)
    attempt = running(tmp_path, states)
    with LeaseKeeper(states, attempt, interval=0.01):  # which waits by a clock that only goes forwards
        for jump in (-1e6, 1e6):
            clock.now += jump
            wait_until(lambda: states.read().lease_until == clock.now + 10.0, seconds=10)


# Notice before the end.


@pytest.mark.parametrize("grace", [0, 1, 5, 30] if ALL else [0, 5])
def test_a_run_that_is_told_to_end_saves_within_its_grace_or_keeps_the_checkpoint_before(tmp_path, grace):
    """A step takes 0.3 s here: with no grace the run is killed in it, with more it ends at the very step."""
    run = tiny_run(Workspace(tmp_path), name="a", until=9, every=4, pause=0.3)
    worker = LocalTarget().launch(run)
    wait_until(lambda: any(event["step"] >= 5 for event in run.events("metric")))
    owner = run.states.read().owner
    os.kill(owner.pid, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while owner.is_alive() and time.monotonic() < deadline:
        time.sleep(0.01)
    if owner.is_alive():
        os.kill(owner.pid, signal.SIGKILL)
    assert follow(worker, Silent()) is State.INTERRUPTED
    good, bad = CheckpointStore(run.checkpoints).newest_good()
    last = max(event["step"] for event in run.events("metric"))
    assert bad == {}
    assert good.step in ((last,) if grace else (4, last))
    assert run.result.failure.reason.startswith(("received SIGTERM",) if grace else ("received", "the worker"))
    assert follow(LocalTarget().launch(run), Silent()) is State.COMPLETED
    assert [event["step"] for event in run.events("metric")] == list(range(1, 10))
