from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import pytest
from pydantic import Field, ValidationError

from clew.config import config
from clew.tasks import Example, MissingPart, Reward, Task, has_part, registry, require_parts

ONE = Example(id="one", prompt="1+1=", completion="2")


@config
class Nothing(Task):
    """No part at all."""


@config
class Sums(Task):
    """Examples and rewards."""

    bonus: Annotated[float, Field(ge=0)] = 0.5
    """Weight of the second reward."""

    def examples(self, split: str) -> Sequence[Example]:
        return [ONE]

    def rewards(self) -> Sequence[Reward]:
        return [
            Reward("exact", lambda example, completion: float(completion == example.completion)),
            Reward("never", lambda example, completion: None, self.bonus),
        ]


@pytest.mark.parametrize(
    ("part", "text"),
    [
        (
            "documents",
            "the task Nothing has no documents, which pretrain needs\n  define documents() in Nothing",
        ),
        ("examples", "the task Nothing has no examples, which sft needs\n  define examples() in Nothing"),
    ],
)
def test_a_missing_part_names_the_task_the_part_and_who_needs_it(part, text):
    with pytest.raises(MissingPart) as caught:
        getattr(Nothing(), part)("train")
    assert str(caught.value) == text


def test_requiring_a_part_names_the_job_that_asks():
    with pytest.raises(MissingPart, match="has no problems, which my_job needs") as caught:
        require_parts(Nothing(), "problems", needed_by="my_job")
    assert caught.value.hint == "define problems() or examples() in Nothing"
    assert caught.value.exit_code == 2


def test_prompts_and_problems_are_the_examples_unless_defined():
    assert Sums().prompts("train") == Sums().problems("test") == [ONE]


def test_metrics_are_the_rewards_that_apply_unless_defined():
    assert Sums().metrics(ONE, "2") == {"exact": 1.0}


def test_parts_count_as_present_when_they_can_be_taken_from_another():
    present = {part for part in ("documents", "examples", "prompts", "rewards", "problems", "metrics")
               if has_part(Sums(), part)}  # fmt: skip
    assert present == {"examples", "prompts", "rewards", "problems", "metrics"}
    assert not any(has_part(Nothing(), part) for part in present)
    require_parts(Sums(), "problems", "metrics", "rewards", needed_by="eval")


def test_a_task_is_its_config():
    assert Sums(bonus=0.1).rewards()[1].weight == 0.1
    with pytest.raises(ValidationError):
        Sums(bonus=-1)


def test_the_registry_finds_the_tasks_that_ship():
    found = {name: registry().resolve(name).__name__ for name in registry().names()}
    assert found == {"arithmetic": "ArithmeticTask", "dataset": "DatasetTask", "wordle": "WordleTask"}
