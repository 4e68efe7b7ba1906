from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from clew.train import Constant, Cosine, TrainingConfig, Wsd

SCHEDULES = [Wsd(), Wsd(warmup=0.0, decay=0.0), Cosine(), Cosine(warmup=0.0, floor=0.0), Constant(warmup=0.3)]


def factors(schedule, total):
    return [schedule.factor(step, total) for step in range(total)]


def test_wsd_warms_up_stays_and_decays():
    expected = [0.5, 1, 1, 1, 1, 1, 1.0, 0.75, 0.5, 0.25]
    assert factors(Wsd(warmup=0.2, decay=0.4), 10) == pytest.approx(expected)


def test_wsd_decays_to_its_floor():
    schedule = Wsd(warmup=0.0, decay=0.5, floor=0.2)
    assert factors(schedule, 8) == pytest.approx([1, 1, 1, 1, 1, 0.8, 0.6, 0.4])
    assert schedule.factor(8, 8) == pytest.approx(0.2)


def test_cosine_is_half_a_cosine_after_the_warmup():
    schedule = Cosine(warmup=0.2, floor=0.1)
    expected = [0.5, 1.0] + [0.1 + 0.9 * (1 + math.cos(math.pi * step / 8)) / 2 for step in range(8)]
    assert factors(schedule, 10) == pytest.approx(expected)
    assert schedule.factor(10, 10) == pytest.approx(0.1)


def test_constant_stays_after_the_warmup():
    assert factors(Constant(warmup=0.5), 4) == pytest.approx([0.5, 1, 1, 1])
    assert factors(Constant(), 3) == [1, 1, 1]


@given(schedule=st.sampled_from(SCHEDULES), total=st.integers(1, 500), step=st.integers(0, 600))
def test_a_factor_lies_between_nothing_and_the_peak_even_past_the_end(schedule, total, step):
    assert 0 <= schedule.factor(step, total) <= 1


@given(schedule=st.sampled_from(SCHEDULES), total=st.integers(1, 500))
def test_every_update_of_a_run_moves_the_weights(schedule, total):
    assert min(factors(schedule, total)) > 0


def test_warmup_and_decay_must_fit_into_the_run():
    with pytest.raises(ValueError, match=r"warmup and decay: 0.6 and 0.5 are more than the whole run"):
        Wsd(warmup=0.6, decay=0.5)


def test_the_budget_is_steps_or_tokens_or_twenty_tokens_a_parameter():
    sizes = {"seq_len": 10, "num_parameters": 1000}
    assert TrainingConfig(steps=7).total_steps(**sizes) == 7
    assert TrainingConfig(tokens=101, batch_size=2).total_steps(**sizes) == 5
    assert TrainingConfig(batch_size=4).total_steps(**sizes) == 500


@given(tokens=st.integers(1, 10**9), batch_size=st.integers(1, 512), seq_len=st.integers(1, 4096))
def test_a_run_never_goes_over_its_token_budget_and_leaves_less_than_a_step(tokens, batch_size, seq_len):
    one_step = batch_size * seq_len
    assume(one_step <= tokens)
    steps = TrainingConfig(tokens=tokens, batch_size=batch_size).total_steps(seq_len=seq_len, num_parameters=1)
    assert tokens - one_step < steps * one_step <= tokens


def test_validation_comes_at_its_turns_and_at_the_end():
    config = TrainingConfig(validate_every=4)
    assert [step for step in range(1, 11) if config.validates_at(step, 10)] == [4, 8, 10]
    assert not TrainingConfig(validate_every=None).validates_at(10, 10)


def test_two_budgets_are_one_too_many():
    with pytest.raises(ValueError, match="steps and tokens: give only one of them"):
        TrainingConfig(steps=1, tokens=1)
