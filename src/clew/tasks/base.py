"""The contract of a task: six parts, each of them optional.

A task *is* its config: the fields of the class are its options. A part that a class does not define raises
:class:`MissingPart` when a job asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

from clew.config import Registry, config
from clew.errors import DataError, UserError
from clew.tasks.hooks import Hooks

SPLITS = ("train", "validation", "test")


class Message(TypedDict):
    """One turn of a conversation."""

    role: str
    content: str


Prompt = str | list[Message]


@dataclass(frozen=True)
class Example:
    """One prompt, and what belongs to it."""

    id: str
    """Unique within its split, and the same in every process."""
    prompt: Prompt
    completion: str | None = None
    """The reference answer; None when there is none."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """Whatever rewards and metrics need besides."""


@dataclass(frozen=True)
class Reward:
    """A named, weighted score of a completion."""

    name: str
    score: Callable[[Example, str], float | None]
    """``score(example, completion)``; None means that the reward does not apply to this example."""
    weight: float = 1.0


_NEEDED_BY = {
    "documents": "pretrain",
    "examples": "sft",
    "prompts": "grpo",
    "rewards": "grpo",
    "problems": "eval",
    "metrics": "eval",
}
# A part that is not defined is taken from this one.
_TAKEN_FROM = {"prompts": "examples", "problems": "examples", "metrics": "rewards"}


class MissingPart(UserError):
    """A job needs a part that the task does not have."""

    @classmethod
    def of(cls, task: Task, part: str, needed_by: str = "") -> MissingPart:
        """Describe one missing part.

        Args:
            task: The task that lacks it.
            part: The name of the method.
            needed_by: The job that asks; empty takes the job that usually does.
        """
        alternative = f" or {_TAKEN_FROM[part]}()" if part in _TAKEN_FROM else ""
        return cls(
            f"the task {type(task).__name__} has no {part}, which {needed_by or _NEEDED_BY[part]} needs",
            hint=f"define {part}(){alternative} in {type(task).__name__}",
        )


class MissingSplit(DataError):
    """The task has no examples for a split; jobs that can do without that split catch it."""


@config
class Task(Hooks):
    """The base of every task; subclasses define the parts that they have, and hooks where they want them."""

    def documents(self, split: str) -> Iterable[str]:
        """Yield plain texts for pretraining."""
        raise MissingPart.of(self, "documents")

    def examples(self, split: str) -> Sequence[Example]:
        """Return prompts with completions for supervised fine-tuning.

        Raises:
            MissingSplit: If the task has nothing for this split.
        """
        raise MissingPart.of(self, "examples")

    def prompts(self, split: str) -> Sequence[Example]:
        """Return prompts for reinforcement learning; without an own definition, the examples."""
        return self.examples(split)

    def rewards(self) -> Sequence[Reward]:
        """Return the rewards; reinforcement learning maximises their weighted sum."""
        raise MissingPart.of(self, "rewards")

    def problems(self, split: str) -> Sequence[Example]:
        """Return what an evaluation asks; without an own definition, the examples."""
        return self.examples(split)

    def metrics(self, example: Example, completion: str) -> Mapping[str, float]:
        """Return the named scores of one completion; without an own definition, the rewards that apply.

        Args:
            example: What was asked.
            completion: The answer as text.
        """
        scores = {reward.name: reward.score(example, completion) for reward in self.rewards()}
        return {name: score for name, score in scores.items() if score is not None}


def has_part(task: Task, part: str) -> bool:
    """Return whether the task defines a part, or the part that it is taken from."""
    assert part in _NEEDED_BY, part
    if getattr(type(task), part) is not getattr(Task, part):
        return True
    return part in _TAKEN_FROM and has_part(task, _TAKEN_FROM[part])


def require_parts(task: Task, *parts: str, needed_by: str) -> None:
    """Check, before anything expensive starts, that a task has what a job needs.

    Raises:
        MissingPart: Naming the task, the part and the job.
    """
    for part in parts:
        if not has_part(task, part):
            raise MissingPart.of(task, part, needed_by)


def registry() -> Registry:
    """Return the tasks that can be named in a config: ours, and those of installed packages."""
    builtin = {
        "arithmetic": "clew.tasks.arithmetic:ArithmeticTask",
        "dataset": "clew.tasks.dataset:DatasetTask",
        "wordle": "clew.tasks.wordle:WordleTask",
    }
    return Registry(kind="task", builtin=builtin, entry_point_group="clew.tasks")
