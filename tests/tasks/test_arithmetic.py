from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from clew.errors import DataError, UserError
from clew.tasks import SPLITS, Example
from clew.tasks.arithmetic import ArithmeticTask

TASKS = st.builds(
    ArithmeticTask,
    operations=st.lists(st.sampled_from("+-*"), min_size=1, max_size=3, unique=True).map(tuple),
    max_operand=st.sampled_from([30, 99, 10**9]),
    negative=st.booleans(),
    held_out=st.floats(0.1, 0.9),
    train_size=st.integers(1, 200),
    test_size=st.integers(1, 200),
    seed=st.integers(0, 2**40),
)


@given(TASKS, st.integers(0, 2**40))
def test_splits_are_disjoint_whatever_the_seeds_even_with_operands_swapped(task, other_seed):
    other = ArithmeticTask(**{**vars_of(task), "seed": other_seed})
    unordered = {
        split: {frozenset([problem.key]) for problem in maker._problems(split)}
        for split, maker in zip(SPLITS, (task, other, task), strict=True)
    }
    for first, second in itertools.combinations(SPLITS, 2):
        assert not unordered[first] & unordered[second]


@given(TASKS)
def test_the_same_config_gives_the_same_distinct_examples(task):
    examples = task.examples("train")
    assert examples == ArithmeticTask(**vars_of(task)).examples("train")
    assert len({example.id for example in examples}) == len(examples) <= task.train_size


@given(TASKS)
def test_the_reference_is_right_and_gets_all_rewards(task):
    for example in task.examples("test")[:20]:
        assert str(eval(example.prompt.rstrip("="))) == example.completion  # the prompt is Python, too
        assert [reward.score(example, example.completion) for reward in task.rewards()] == [1.0, 1.0]
        assert task.negative or not example.completion.startswith("-")


def test_another_seed_gives_another_order():
    assert ArithmeticTask(seed=1).examples("test") != ArithmeticTask(seed=2).examples("test")


def test_all_splits_together_are_all_problems():
    task = ArithmeticTask(max_operand=19, train_size=10**6, validation_size=10**6, test_size=10**6)
    assert sum(len(task.examples(split)) for split in SPLITS) == 400


def test_a_range_too_large_to_list_is_drawn_from():
    task = ArithmeticTask(max_operand=10**12)
    assert len({example.id for example in task.examples("train")}) == 8000


def test_documents_hold_every_problem_in_every_form():
    task = ArithmeticTask(
        train_size=1, document_forms=("equation", "sentence", "flipped", "question"), operations=("*",)
    )
    (example,) = task.examples("train")
    left, right = example.id.split("*")
    assert list(task.documents("train")) == [
        f"{example.prompt}{example.completion}",
        f"{left} times {right} is {example.completion}.",
        f"{example.completion}={left}*{right}",
        f"What is {left} * {right}? Answer with the number only.\n{example.completion}",
    ]


def test_a_question_is_asked_in_english():
    example = ArithmeticTask(prompt_style="question").examples("test")[0]
    left, right = example.id.split("+")
    assert example.prompt == f"What is {left} + {right}? Answer with the number only."


@pytest.mark.parametrize(
    ("completion", "whole", "last", "form"),
    [
        ("46", 1, 1, 1),
        (" 46\n", 1, 1, 1),
        ("12 + 34 is 46.", 0, 1, 0),
        ("46 = 12 + 34", 0, 0, 0),
        ("-46", 0, 0, 1),
        ("45", 0, 0, 1),
        ("", 0, 0, 0),
        ("46 46", 0, 1, 0),
    ],
)
def test_scores(completion, whole, last, form):
    example = Example(id="12+34", prompt="12+34=", completion="46")
    assert ArithmeticTask().metrics(example, completion) == {"exact": whole, "format": form}
    assert ArithmeticTask(answer="last_integer").metrics(example, completion)["exact"] == last


def test_rewards_are_named_and_weighted():
    assert [(one.name, one.weight) for one in ArithmeticTask(format_weight=0.3).rewards()] == [
        ("exact", 1.0),
        ("format", 0.3),
    ]


def test_a_range_without_problems_is_said():
    with pytest.raises(DataError) as caught:
        ArithmeticTask(max_operand=0, held_out=0.01).examples("test")
    assert str(caught.value) == (
        "arithmetic: operands from 0 to 0 leave no problem for the split 'test'\n  raise max_operand or held_out"
    )


def test_an_unknown_split_is_said():
    with pytest.raises(UserError, match=r"there is no split 'tset'\n  did you mean 'test'\?"):
        ArithmeticTask().examples("tset")


def test_operands_must_be_in_order():
    with pytest.raises(ValidationError, match="min_operand and max_operand"):
        ArithmeticTask(min_operand=5, max_operand=3)


def vars_of(task):
    return {name: getattr(task, name) for name in type(task).__pydantic_fields__}
