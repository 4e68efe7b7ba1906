from __future__ import annotations

from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from clew.engines import GenerationConfig, plan_batches
from clew.engines.base import STEP_COST

LENGTHS = st.lists(st.integers(1, 50), max_size=40)


@given(LENGTHS, st.integers(1, 20), st.integers(1, 400))
def test_a_plan_holds_every_prompt_once(lengths, new_tokens, budget):
    batches = plan_batches(lengths, new_tokens, budget)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))


@given(LENGTHS, st.integers(1, 20), st.integers(1, 400))
def test_no_batch_of_several_exceeds_the_budget(lengths, new_tokens, budget):
    for batch in plan_batches(lengths, new_tokens, budget):
        width = max(lengths[index] for index in batch) + new_tokens
        assert len(batch) == 1 or len(batch) * width <= budget


def cost(widths, new_tokens):
    """Of batches, each given by the lengths of its prompts."""
    return sum(len(batch) * max(batch) + STEP_COST * new_tokens for batch in widths)


@given(st.lists(st.integers(1, 200), min_size=1, max_size=7), st.integers(1, 3), st.integers(1, 900))
def test_no_other_cut_of_the_sorted_prompts_costs_less(lengths, new_tokens, budget):
    ranked = sorted(lengths, reverse=True)
    allowed = []
    for number in range(len(ranked)):
        for cuts in combinations(range(1, len(ranked)), number):
            batches = [ranked[start:end] for start, end in pairwise((0, *cuts, len(ranked)))]
            if all(len(one) == 1 or len(one) * (one[0] + new_tokens) <= budget for one in batches):
                allowed.append(cost(batches, new_tokens))
    plan = plan_batches(lengths, new_tokens, budget)
    assert cost([[lengths[index] for index in batch] for batch in plan], new_tokens) == min(allowed)


def test_a_few_long_prompts_do_not_widen_the_many_short_ones():
    lengths = [10] * 50 + [400] + [10] * 50
    assert [len(batch) for batch in plan_batches(lengths, 4, 10**6)] == [1, 100]
    assert [len(batch) for batch in plan_batches(lengths, 2000, 10**6)] == [101]


@given(LENGTHS)
def test_the_longest_prompts_come_first_and_equal_ones_in_order(lengths):
    order = [index for batch in plan_batches(lengths, 1, 100) for index in batch]
    assert order == sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))


def test_the_text_of_a_stop_must_not_be_empty():
    with pytest.raises(ValidationError):
        GenerationConfig(stop=("",))
