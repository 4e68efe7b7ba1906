"""What a spike is, and what is none."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.health.losses import loss_section
from clew.health.spikes import LEAST, RECOVERY, WINDOW, SpikeFinder, find_spikes

LOSSES = st.floats(min_value=1e-3, max_value=1e3)


@given(LOSSES, st.integers(1, 200))
def test_constant_losses_have_no_spike(loss, count):
    assert find_spikes([loss] * count) == []


@given(LOSSES, st.floats(min_value=0.5, max_value=1.0), st.integers(1, 200))
def test_falling_losses_have_no_spike(loss, factor, count):
    assert find_spikes([loss * factor**step for step in range(count)]) == []


@given(LOSSES, st.lists(st.floats(min_value=-0.15, max_value=0.15), min_size=1, max_size=150))
def test_noise_of_a_few_percent_is_no_spike(loss, noise):
    assert find_spikes([loss * (1 + one / 2) for one in noise]) == []


@given(
    LOSSES,
    st.lists(st.floats(min_value=-0.05, max_value=0.05), min_size=LEAST + 1, max_size=150),
    st.floats(min_value=0.99, max_value=1.0),
    st.data(),
)
def test_a_loss_ten_times_as_large_is_found_where_it_is(loss, noise, factor, data):
    losses = [loss * factor**step * (1 + one) for step, one in enumerate(noise)]
    place = data.draw(st.integers(LEAST, len(losses) - 1))
    losses[place] *= 10
    (spike,) = find_spikes(losses)
    assert (spike.index, spike.last, spike.value) == (place, place, losses[place])


@given(st.lists(LOSSES, max_size=100), st.integers(-20, 20))
def test_the_unit_of_the_loss_does_not_matter(losses, power):
    # A power of two is a factor without rounding.
    found = [[(spike.index, spike.last) for spike in find_spikes(scaled)] for scaled in (losses, times(losses, power))]
    assert found[0] == found[1]


def times(losses, power):
    return [math.ldexp(loss, power) for loss in losses]


@given(st.lists(st.floats(-10, 10) | st.sampled_from([math.nan, math.inf, -math.inf]), max_size=120))
def test_memory_is_bounded_and_what_is_not_finite_is_counted_apart(losses):
    finder = SpikeFinder()
    for loss in losses:
        finder.add(loss)
        assert len(finder._ordered) == len(finder._recent) <= WINDOW
        assert finder._ordered == sorted(finder._recent)
    assert finder.not_finite == sum(not math.isfinite(loss) for loss in losses)
    assert finder.lost == next((place for place, loss in enumerate(losses) if not math.isfinite(loss)), None)


def test_a_spike_of_several_values_is_one_and_tells_its_highest():
    (spike,) = find_spikes([2.0] * 20 + [9.0, 14.0, 11.0] + [2.0] * 20)
    assert (spike.index, spike.last, spike.value, spike.usual) == (20, 22, 14.0, 2.0)


@pytest.mark.parametrize(("high", "recovered"), [(1, True), (RECOVERY, True), (RECOVERY + 2, False)])
def test_a_loss_that_stays_up_has_not_recovered(high, recovered):
    section = loss_section([2.0] * 40 + [9.0] * high)
    assert (section["num_spikes"], section["recovered"]) == (1, recovered)


def test_a_loss_that_came_back_late_has_recovered():
    assert loss_section([2.0] * 40 + [9.0] * 20 + [2.0])["recovered"]


def test_the_first_losses_say_nothing_of_each_other():
    assert find_spikes([1.0] * (LEAST - 1) + [100.0]) == []


def test_losses_with_a_known_step_have_spikes_with_a_step():
    losses = [2.0] * 30 + [20.0] + [2.0] * 9
    assert loss_section(losses, step=140)["spikes"] == [{"step": 131, "value": 20.0, "usual": 2.0}]
    assert loss_section(losses)["spikes"] == [{"step": None, "value": 20.0, "usual": 2.0}]


def test_no_losses_are_no_section():
    assert loss_section([]) is None
