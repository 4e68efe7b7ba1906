"""Sums, differences and products: a task small enough for a model that is trained from scratch in minutes."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, model_validator

from clew.config import config
from clew.errors import DataError
from clew.tasks.base import Example, Reward, Task
from clew.tasks.splits import check_split, split_of

Operation = Literal["+", "-", "*"]
Form = Literal["equation", "question", "sentence", "flipped"]

_INTEGER = re.compile(r"-?[0-9]+")
_WORDS: Mapping[str, str] = {"+": "plus", "-": "minus", "*": "times"}
# Below this size the problems are listed and shuffled; above it they are drawn.
_LISTABLE = 1_000_000


@dataclass(frozen=True)
class Problem:
    """Two operands and an operation."""

    left: int
    operation: Operation
    right: int

    @property
    def answer(self) -> str:
        """The result, in digits."""
        results = {"+": self.left + self.right, "-": self.left - self.right, "*": self.left * self.right}
        return str(results[self.operation])

    @property
    def key(self) -> str:
        """What decides about the split; the same for 3+5 and 5+3, for one gives the other away."""
        pair = [self.left, self.right] if self.operation == "-" else sorted((self.left, self.right))
        return f"{pair[0]}{self.operation}{pair[1]}"

    def prompt(self, form: str) -> str:
        """Return the text before the answer, in the form ``equation`` or ``question``."""
        if form == "equation":
            return f"{self.left}{self.operation}{self.right}="
        return f"What is {self.left} {self.operation} {self.right}? Answer with the number only."

    def document(self, form: Form) -> str:
        """Return the problem with its answer as one text."""
        left, right, answer = self.left, self.right, self.answer
        texts = {
            "equation": f"{left}{self.operation}{right}={answer}",
            "question": f"{self.prompt('question')}\n{answer}",
            "sentence": f"{left} {_WORDS[self.operation]} {right} is {answer}.",
            "flipped": f"{answer}={left}{self.operation}{right}",
        }
        return texts[form]


@config
class ArithmeticTask(Task):
    """Arithmetic with whole numbers; problems are made, not read.

    The hash of a problem decides whether it is trained on or held out, whatever the seed and the sizes: two runs that
    share a range of operands never train on each other's test problems.
    """

    operations: Annotated[tuple[Operation, ...], Field(min_length=1)] = ("+",)
    """Which operations occur, each equally often as far as there are problems."""
    min_operand: Annotated[int, Field(ge=0)] = 0
    """The smallest operand."""
    max_operand: Annotated[int, Field(ge=0)] = 99
    """The largest operand."""
    negative: bool = False
    """Whether differences may be below zero."""
    prompt_style: Literal["equation", "question"] = "equation"
    """How problems are asked: `12+34=`, or a question in English."""
    document_forms: Annotated[tuple[Form, ...], Field(min_length=1)] = ("equation",)
    """The forms in which every problem occurs in the documents for pretraining."""
    train_size: Annotated[int, Field(ge=1)] = 8000
    """The number of training problems; fewer where the operands allow no more."""
    validation_size: Annotated[int, Field(ge=1)] = 200
    """The number of validation problems."""
    test_size: Annotated[int, Field(ge=1)] = 200
    """The number of test problems."""
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """The share of all problems that is never trained on: one half for validation, one half for testing."""
    answer: Literal["whole", "last_integer"] = "whole"
    """What of a completion is compared: all of it, or its last whole number (for models that talk)."""
    format_weight: Annotated[float, Field(ge=0)] = 0.2
    """The weight of the reward `format` beside that of `exact`, which is 1."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the choice and the order of problems."""

    @model_validator(mode="after")
    def _operands_in_order(self) -> ArithmeticTask:
        if self.min_operand > self.max_operand:
            raise ValueError("min_operand and max_operand: the smallest operand is larger than the largest")
        return self

    def documents(self, split: str) -> Iterable[str]:
        """Yield every problem of a split in all forms, one text each."""
        for problem in self._problems(split):
            for form in self.document_forms:
                yield problem.document(form)

    def examples(self, split: str) -> Sequence[Example]:
        """Return the problems of a split; ids such as ``12+34``.

        Raises:
            DataError: If the range of operands is too small to have any.
        """
        return [
            Example(
                id=f"{problem.left}{problem.operation}{problem.right}",
                prompt=problem.prompt(self.prompt_style),
                completion=problem.answer,
            )
            for problem in self._problems(split)
        ]

    def rewards(self) -> Sequence[Reward]:
        """Return ``exact`` (the right number) and ``format`` (one whole number and nothing else)."""
        return [Reward("exact", self._exact), Reward("format", _is_one_integer, self.format_weight)]

    def metrics(self, example: Example, completion: str) -> Mapping[str, float]:
        """Return ``exact`` and ``format``, each 0 or 1."""
        return {"exact": self._exact(example, completion), "format": _is_one_integer(example, completion)}

    def _exact(self, example: Example, completion: str) -> float:
        if self.answer == "last_integer":
            found = _INTEGER.findall(completion)
            return float(bool(found) and found[-1] == example.completion)
        return float(completion.strip() == example.completion)

    def _problems(self, split: str) -> list[Problem]:
        sizes = {"train": self.train_size, "validation": self.validation_size, "test": self.test_size}
        wanted = sizes[check_split(split)]
        found: list[Problem] = []
        for problem in self._all_problems():
            if split_of(problem.key, validation=self.held_out / 2, test=self.held_out / 2) == split:
                found.append(problem)
                if len(found) == wanted:
                    break
        if not found:
            raise DataError(
                f"operands from {self.min_operand} to {self.max_operand} leave no problem for the split {split!r}",
                where="arithmetic",
                hint="raise max_operand or held_out",
            )
        return found

    def _all_problems(self) -> Iterator[Problem]:
        """Yield every problem once, in an order that only the seed decides."""
        width = self.max_operand - self.min_operand + 1
        operations = self.operations
        for number in _shuffled(width * width * len(operations), self.seed):
            pair, operation = divmod(number, len(operations))
            left, right = divmod(pair, width)
            problem = Problem(left + self.min_operand, operations[operation], right + self.min_operand)
            if self.negative or problem.operation != "-" or problem.left >= problem.right:
                yield problem


def _is_one_integer(example: Example, completion: str) -> float:
    return float(_INTEGER.fullmatch(completion.strip()) is not None)


def _shuffled(size: int, seed: int) -> Iterator[int]:
    """Yield the numbers below ``size`` once each, in random order; a large range is never listed."""
    generator = random.Random(hashlib.sha256(f"arithmetic {seed}".encode()).digest())
    if size <= _LISTABLE:
        order = list(range(size))
        generator.shuffle(order)
        yield from order
        return
    seen: set[int] = set()
    while len(seen) < size:
        number = generator.randrange(size)
        if number not in seen:
            seen.add(number)
            yield number
