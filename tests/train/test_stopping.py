from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.train import EarlyStoppingConfig, TrainingConfig
from clew.train.stopping import Patience


def fed(values, **options):
    patience = Patience(**options)
    return patience, [patience.update(step, value) for step, value in enumerate(values, 1)]


def test_patience_is_out_after_as_many_values_without_an_improvement():
    patience, improved = fed([3.0, 2.0, 2.5, 2.0], limit=3)
    assert improved == [True, True, False, False]
    assert (patience.best, patience.best_step, patience.waited, patience.is_out) == (2.0, 2, 2, False)
    patience.update(5, 2.1)
    assert patience.is_out


def test_an_improvement_must_be_large_enough_and_starts_the_count_anew():
    patience, improved = fed([3.0, 2.95, 2.85, 2.8], limit=2, min_delta=0.1)
    assert improved == [True, False, True, False]
    assert not patience.is_out


def test_what_is_no_number_is_no_improvement():
    assert fed([math.nan, math.inf, 2.0, math.nan], limit=9)[1] == [False, False, True, False]


def test_without_a_limit_patience_has_no_end():
    assert not fed([1.0] * 100)[0].is_out


@given(st.lists(st.floats(0, 9), max_size=20), st.integers(0, 20), st.integers(1, 4))
def test_a_state_goes_on_as_if_nothing_had_happened(values, cut, limit):
    straight, _ = fed(values, limit=limit)
    first, _ = fed(values[:cut], limit=limit)
    second = Patience(limit)
    second.load(first.state())
    for step, value in enumerate(values[cut:], cut + 1):
        second.update(step, value)
    assert second == straight


def test_stopping_without_validating_is_refused():
    with pytest.raises(ValueError, match=r"early_stopping and validate_every: without a validation nothing can stop"):
        TrainingConfig(early_stopping=EarlyStoppingConfig(), validate_every=None)
