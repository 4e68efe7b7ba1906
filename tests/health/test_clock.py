"""Times of steps, by a clock that only goes when it is told to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.health.clock import StepClock, percentile


class Hand:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def go(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def hand():
    return Hand()


def steps(clock, hand, *, work=1.0, data=0.0, pause=0.0, count=1, tokens=None):
    for _ in range(count):
        with clock.data():
            hand.go(data)
        hand.go(work)
        clock.step_done(tokens)
        with clock.pause():
            hand.go(pause)


def test_steps_are_told_apart_from_waiting_and_pauses(hand):
    clock = StepClock(clock=hand)
    steps(clock, hand, work=3.0, data=1.0, pause=4.0, count=3, tokens=8)
    found = clock.summary()
    assert (found["steps"], found["median_seconds"], found["data_share"]) == (3, 4.0, 0.25)
    assert found["pause_share"] == 8 / 20  # the last pause belongs to a step that is not done
    assert found["tokens_per_second"] == 2.0


def test_only_the_newest_steps_are_remembered(hand):
    clock = StepClock(4, hand)
    steps(clock, hand, work=9.0, count=20)
    steps(clock, hand, work=1.0, count=4)
    assert [step.seconds for step in clock.steps] == [1.0] * 4


def test_the_slow_steps_are_those_of_the_last_twentieth(hand):
    clock = StepClock(clock=hand)
    steps(clock, hand, work=1.0, count=94)
    steps(clock, hand, work=5.0, count=6)
    assert (clock.summary()["median_seconds"], clock.summary()["p95_seconds"]) == (1.0, 5.0)


def test_what_is_not_known_is_none_and_not_zero(hand):
    clock = StepClock(clock=hand)
    assert clock.summary() == {
        "steps": 0,
        "median_seconds": None,
        "p95_seconds": None,
        "data_share": None,
        "pause_share": None,
        "tokens_per_second": None,
    }
    steps(clock, hand, tokens=5)
    steps(clock, hand, tokens=None)
    assert clock.summary()["tokens_per_second"] is None


def test_a_first_step_of_which_nobody_saw_the_beginning_is_not_counted(hand):
    clock = StepClock(clock=hand)
    hand.go(7.0)
    clock.step_done()
    assert clock.steps == []
    hand.go(2.0)
    clock.step_done()
    assert [step.seconds for step in clock.steps] == [2.0]


def test_an_error_while_data_is_awaited_leaves_the_clock_right(hand):
    clock = StepClock(clock=hand)
    with pytest.raises(RuntimeError), clock.data():
        hand.go(2.0)
        raise RuntimeError
    hand.go(1.0)
    clock.step_done()
    assert [(step.seconds, step.data) for step in clock.steps] == [(3.0, 2.0)]


@given(st.lists(st.floats(0, 100), min_size=1, max_size=60), st.floats(0.01, 1))
def test_a_percentile_is_one_of_the_values_with_enough_below_it(values, share):
    ordered = sorted(values)
    found = percentile(ordered, share)
    assert found in ordered
    assert sum(value <= found for value in ordered) >= share * len(ordered) - 1e-9
