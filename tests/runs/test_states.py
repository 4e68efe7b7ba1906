import json
import multiprocessing
import os
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from clew.runs import Fenced, IllegalMove, Owner, RunState, State, StateFile
from clew.runs.states import LEASE_SECONDS, MOVES

WRITABLE = [state for state in State if state is not State.UNKNOWN]


@pytest.fixture
def states(tmp_path):
    file = StateFile(tmp_path)
    file.create()
    return file


def dead_owner():
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    owner = replace(Owner.of(process.pid), started=1)
    process.wait(timeout=30)
    return owner


def test_the_normal_life_of_a_run(states):
    attempt = states.queue()
    for state in (State.STARTING, State.RUNNING, State.PAUSED, State.RUNNING, State.COMPLETED):
        states.move(state, attempt=attempt)
    assert states.read().state is State.COMPLETED
    assert states.read().owner is None


@given(st.sampled_from(WRITABLE), st.sampled_from(WRITABLE))
def test_exactly_the_moves_of_the_table_are_accepted(tmp_path_factory, before, after):
    file = StateFile(tmp_path_factory.mktemp("run"))
    file.path.write_text(json.dumps(RunState(before, attempt=1).to_json()))
    if after in MOVES[before]:
        file.move(after, attempt=1)
        assert file.read().state is after
    else:
        with pytest.raises(IllegalMove, match=f"a run that is {before} cannot become {after}"):
            file.move(after, attempt=1)
        assert file.read().state is before


def test_a_replaced_attempt_is_refused_everywhere(states):
    first = states.queue()
    states.move(State.STARTING, attempt=first)
    states.move(State.RUNNING, attempt=first)
    states.move(State.INTERRUPTED, attempt=first)
    second = states.queue()
    for act in (
        lambda: states.check(first),
        lambda: states.renew(first),
        lambda: states.move(State.STARTING, attempt=first),
    ):
        with pytest.raises(Fenced, match="attempt 1 was replaced by attempt 2"):
            act()
    states.check(second)


def test_a_run_whose_worker_lives_cannot_be_queued_again(states):
    attempt = states.queue()
    states.move(State.STARTING, attempt=attempt)
    states.move(State.RUNNING, attempt=attempt, owner=Owner.current())
    with pytest.raises(IllegalMove, match="running cannot become queued"):
        states.queue()


@pytest.mark.parametrize("last", [State.QUEUED, State.STARTING, State.RUNNING])
def test_a_run_whose_owner_died_can_be_queued_again_from_any_state(states, last):
    owner = dead_owner()
    attempt = states.queue()
    for state in (State.STARTING, State.RUNNING):
        if states.read().state is not last:
            states.move(state, attempt=attempt, owner=owner)
    value = {**states.read().to_json(), "owner": vars(owner)}
    states.path.write_text(json.dumps(value))
    assert states.read().observed(time.time()) is State.INTERRUPTED
    assert states.queue() == 2


def test_a_recycled_process_number_is_not_taken_for_the_owner():
    impostor = replace(Owner.current(), started=(Owner.current().started or 0) + 1)
    assert Owner.current().is_alive()
    assert not impostor.is_alive()


def test_an_owner_elsewhere_is_unknown_only_after_its_lease():
    now = time.time()
    state = RunState(State.RUNNING, 1, Owner("another-host", 1, 1), now + LEASE_SECONDS)
    assert state.observed(now) is State.RUNNING
    assert state.observed(now + LEASE_SECONDS + 1) is State.UNKNOWN


def _queue(folder, barrier, results):
    barrier.wait(timeout=30)
    try:
        results.put(StateFile(folder).queue())
    except IllegalMove:
        results.put(None)


def test_of_many_that_resume_at_once_exactly_one_wins(states, tmp_path):
    first = states.queue()
    states.move(State.STARTING, attempt=first)
    states.move(State.INTERRUPTED, attempt=first)
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(6), context.Queue()
    workers = [context.Process(target=_queue, args=(tmp_path, barrier, results)) for _ in range(6)]
    for worker in workers:
        worker.start()
    won = [results.get(timeout=30) for _ in workers]
    for worker in workers:
        worker.join(timeout=30)
    # A winner that has ended already may itself be replaced; nobody ever gets a number twice.
    numbers = [attempt for attempt in won if attempt is not None]
    assert numbers
    assert len(set(numbers)) == len(numbers)


def test_attempts_only_grow_whatever_happens(tmp_path):
    class Attempts(RuleBasedStateMachine):
        def __init__(self):
            super().__init__()
            folder = tmp_path / f"{time.monotonic_ns()}-{os.getpid()}"
            folder.mkdir()
            self.file = StateFile(folder)
            self.file.create()
            self.last = 0

        @rule()
        def queue(self):
            try:
                attempt = self.file.queue()
            except IllegalMove:
                return
            assert attempt == self.last + 1
            self.last = attempt

        @rule(state=st.sampled_from(WRITABLE), lag=st.integers(0, 2))
        def move(self, state, lag):
            before = self.file.read()
            try:
                self.file.move(state, attempt=self.last - lag)
            except (IllegalMove, Fenced):
                after = self.file.read()
                assert (after.state, after.attempt) == (before.state, before.attempt)
                return
            assert self.file.read().state is state
            assert self.file.read().attempt == self.last

    run_state_machine_as_test(Attempts)
