import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.reports.statistics import Tally

counts = st.integers(1, 10_000).flatmap(lambda count: st.tuples(st.integers(0, count), st.just(count)))


def wilson_interval(successes, count):
    return Tally(count, float(successes)).interval


@pytest.mark.parametrize(
    ("successes", "count", "low", "high"),
    # Table I of R. G. Newcombe, Statistics in Medicine 17 (1998), 857-872, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_the_interval_agrees_with_published_values(successes, count, low, high):
    assert wilson_interval(successes, count) == pytest.approx((low, high), abs=5e-5)


@given(counts)
def test_the_interval_holds_the_share_and_stays_between_0_and_1(trial):
    low, high = wilson_interval(*trial)
    assert 0 <= low <= trial[0] / trial[1] <= high <= 1
    assert low < high


@given(counts)
def test_the_interval_of_the_failures_is_the_mirror_image(trial):
    low, high = wilson_interval(*trial)
    assert wilson_interval(trial[1] - trial[0], trial[1]) == pytest.approx((1 - high, 1 - low))


def tally(*values):
    made = Tally()
    for value in values:
        made.add(value)
    return made


def test_a_metric_of_zeros_and_ones_is_a_proportion():
    assert tally(1.0, 0.0, 1.0, 1.0).mean == 0.75
    assert tally(1.0, 0.0, 1.0, 1.0).interval == wilson_interval(3, 4)


def test_any_other_metric_is_a_mean_without_an_interval():
    assert tally(1.0, 0.5).mean == 0.75
    assert tally(1.0, 0.5).interval is None


def test_no_examples_have_no_mean():
    assert Tally().mean is None
    assert Tally().interval is None
