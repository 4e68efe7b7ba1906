from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.jobs.estimates import (
    bootstrap_interval,
    mean,
    pass_at_k,
    proportion_interval,
    wilson_interval,
)


@pytest.mark.parametrize(("samples", "successes", "k"), [(5, 2, 3), (6, 1, 2), (4, 0, 4), (4, 4, 1), (7, 3, 1)])
def test_pass_at_k_is_the_share_of_subsets_with_a_success(samples, successes, k):
    right = [index < successes for index in range(samples)]
    subsets = [any(some) for some in itertools.combinations(right, k)]
    assert pass_at_k(samples, successes, k) == pytest.approx(sum(subsets) / len(subsets))


@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_k_is_the_ratio_of_binomials(case):
    n, c, k = case
    assert pass_at_k(n, c, k) == pytest.approx(1 - math.comb(n - c, k) / math.comb(n, k), abs=1e-12)


def test_pass_at_1_is_the_mean_and_large_numbers_do_not_overflow():
    assert pass_at_k(8, 3, 1) == pytest.approx(3 / 8)
    assert pass_at_k(100_000, 1, 50_000) == pytest.approx(0.5)


@pytest.mark.parametrize("case", [(4, 5, 1), (4, -1, 1), (4, 2, 5), (4, 2, 0)])
def test_what_pass_at_k_is_not_defined_for_is_refused(case):
    with pytest.raises(ValueError, match=r"pass@"):
        pass_at_k(*case)


def test_pass_at_k_is_unbiased():
    draw = random.Random(0)
    trials = [pass_at_k(6, sum(draw.random() < 0.3 for _ in range(6)), 3) for _ in range(20_000)]
    assert mean(trials) == pytest.approx(1 - 0.7**3, abs=0.01)


def test_the_interval_of_a_proportion_is_wilsons():
    # 3 of 10: (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n).
    found = proportion_interval([1.0] * 3 + [0.0] * 7)
    assert (found.low, found.high, found.method) == (
        pytest.approx(0.10779, abs=1e-5),
        pytest.approx(0.60322, abs=1e-5),
        "wilson",
    )
    none = proportion_interval([0.0] * 10)
    assert (none.low, none.high) == (0.0, pytest.approx(0.27753, abs=1e-5))


def test_several_answers_are_worth_between_a_trial_a_problem_and_a_trial_each():
    alike = proportion_interval([1.0, 0.0] * 10, answers=5)
    assert alike == wilson_interval(0.5, 20)
    mixed = proportion_interval([0.4, 0.6] * 10, answers=5)
    assert mixed == wilson_interval(0.5, 100)
    between = proportion_interval([0.1, 0.9] * 10, answers=5)
    assert alike.high > between.high > mixed.high


def test_an_interval_over_problems_covers_what_one_over_answers_misses():
    draw, covered, naive = random.Random(1), 0, 0
    for _ in range(300):
        shares = []
        for _ in range(30):
            easy = draw.random() < 0.5
            shares.append(sum(draw.random() < (0.95 if easy else 0.05) for _ in range(8)) / 8)
        found, wrong = proportion_interval(shares, 8), wilson_interval(mean(shares), 240)
        covered += found.low <= 0.5 <= found.high
        naive += wrong.low <= 0.5 <= wrong.high
    assert covered / 300 > 0.9 > 0.7 > naive / 300


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.integers(1, 9))
def test_an_interval_lies_in_the_unit_interval_around_the_mean(shares, answers):
    found = proportion_interval(shares, answers)
    assert 0 <= found.low <= mean(shares) <= found.high <= 1


def test_the_bootstrap_agrees_with_the_normal_interval_and_repeats():
    draw = random.Random(2)
    values = [draw.gauss(3, 2) for _ in range(400)]
    found = bootstrap_interval(values, seed=0)
    centre = mean(values)
    spread = 1.96 * math.sqrt(sum((value - centre) ** 2 for value in values) / 399 / 400)
    assert (found.low, found.high) == pytest.approx((centre - spread, centre + spread), abs=0.03)
    assert found == bootstrap_interval(values[::-1], seed=0) != bootstrap_interval(values, seed=1)


@pytest.mark.parametrize("values", [[1.5], [1.5, math.nan], [1.5, math.inf]])
def test_nothing_is_said_of_one_value_or_of_one_that_is_not_finite(values):
    assert bootstrap_interval(values, seed=0) is None


def test_a_mean_does_not_depend_on_the_order():
    values = [1e16, 1.0, -1e16, 0.1] * 7
    assert mean(values) == mean(sorted(values)) == pytest.approx(1.1 / 4)
    assert math.isnan(mean([math.inf, -math.inf]))
