import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.reports.series import MAX_BUCKETS, MeanSeries, Series

finite = st.floats(-1e6, 1e6)
values = st.lists(finite, min_size=1, max_size=300)


def series_of(numbers, limit=MAX_BUCKETS):
    series = Series(limit)
    for step, value in enumerate(numbers, start=1):
        series.add(step, value)
    return series


def test_a_short_series_is_kept_as_it_is():
    series = series_of([3.0, 1.0, 2.0])
    assert series.points() == [(1, 3.0), (2, 1.0), (3, 2.0)]
    assert not series.is_thinned


@given(values, st.integers(1, 20))
def test_thinning_keeps_the_extremes_and_both_ends_in_the_order_of_steps(numbers, limit):
    points = series_of(numbers, limit).points()
    kept = [value for _, value in points]
    assert (min(kept), max(kept)) == (min(numbers), max(numbers))
    assert points[0] == (1, numbers[0])
    assert points[-1] == (len(numbers), numbers[-1])
    assert [step for step, _ in points] == sorted(step for step, _ in points)


@given(values, st.integers(1, 20))
def test_a_series_within_its_bound_is_kept_whole_and_no_other_grows_beyond_it(numbers, limit):
    series = series_of(numbers, limit)
    if len(numbers) <= limit:
        assert not series.is_thinned
    if not series.is_thinned:
        assert series.points() == list(enumerate(numbers, start=1))
    assert len(series.points()) <= 2 * limit + 2


@given(values, st.integers(1, 20))
def test_every_point_that_is_kept_was_there(numbers, limit):
    assert set(series_of(numbers, limit).points()) <= set(enumerate(numbers, start=1))


@given(values, st.integers(1, 20), st.randoms())
def test_the_order_in_which_steps_arrive_changes_no_extreme(numbers, limit, random):
    mixed = Series(limit)
    pairs = list(enumerate(numbers, start=1))
    random.shuffle(pairs)
    for step, value in pairs:
        mixed.add(step, value)
    kept = [value for _, value in mixed.points()]
    assert (min(kept), max(kept)) == (min(numbers), max(numbers))


def test_a_million_points_take_bounded_memory_and_keep_their_spike():
    series = Series()
    for step in range(1_000_000):
        series.add(step, 99.0 if step == 777_777 else math.sin(step))
    assert len(series._buckets) <= MAX_BUCKETS
    assert len(series.points()) <= 3 * MAX_BUCKETS + 2
    assert (777_777, 99.0) in series.points()
    assert series.is_thinned


def test_sparse_steps_are_bounded_too():
    series = Series(limit=4)
    for step in (1, 10**9, 5 * 10**8, 7, 10**6, 3 * 10**8):
        series.add(step, float(step))
    assert len(series._buckets) <= 4
    assert {1, 10**9} <= {step for step, _ in series.points()}


def test_values_that_are_not_finite_interrupt_the_line_where_they_were():
    series = series_of([1.0, math.nan, math.inf, 2.0])
    steps, kept = zip(*series.points(), strict=True)
    assert steps == (1, 2, 3, 4)
    assert [math.isnan(value) for value in kept] == [False, True, True, False]
    assert (series.not_finite, series.first_not_finite, series.last) == (2, 2, (4, 2.0))


def test_a_series_without_a_finite_value_has_no_last_point():
    assert series_of([math.nan, math.inf]).last is None


@given(values, st.integers(0, 60), st.integers(1, 20))
def test_a_series_that_is_cut_keeps_what_it_has_of_the_steps_before(numbers, step, limit):
    series, shorter = series_of(numbers, limit), series_of(numbers[:step], limit)
    kept = [point for point in series.points() if point[0] <= step]
    series.cut(step)
    assert series.points() == kept
    assert series.last == (kept[-1] if kept else None)
    if not series.is_thinned:
        assert series.points() == shorter.points()
        assert series.last == shorter.last


def test_a_mean_series_gives_the_mean_of_each_step():
    series = MeanSeries()
    for step, value in [(1, 0.0), (1, 1.0), (2, 3.0)]:
        series.add(step, value)
    assert series.points() == [(1.0, 0.5), (2.0, 3.0)]


def test_missing_scores_are_counted_and_spoil_no_mean():
    series = MeanSeries()
    for value in (None, math.nan, 2.0):
        series.add(1, value)
    assert (series.points(), series.count, series.missing) == ([(1.0, 2.0)], 1, 2)


@given(values, st.integers(1, 20))
def test_a_mean_series_keeps_the_overall_mean(numbers, limit):
    series = MeanSeries(limit)
    for step, value in enumerate(numbers):
        series.add(step, value)
    assert len(series.points()) <= limit
    assert series.mean(slice(None)) == pytest.approx(sum(numbers) / len(numbers), abs=1e-6)


def test_a_mean_of_nothing_is_none():
    assert MeanSeries().mean(slice(None)) is None
