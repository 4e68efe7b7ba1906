from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from clew.engines import GenerationConfig, plan_batches

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


@given(LENGTHS)
def test_the_longest_prompts_come_first_and_equal_ones_in_order(lengths):
    order = [index for batch in plan_batches(lengths, 1, 100) for index in batch]
    assert order == sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))


def test_the_text_of_a_stop_must_not_be_empty():
    with pytest.raises(ValidationError):
        GenerationConfig(stop=("",))
