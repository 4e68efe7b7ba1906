"""The user's own data: prompts with completions, conversations, or plain text, from files."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from clew.config import InputPath, config
from clew.config.plugins import load_object
from clew.errors import DataError, did_you_mean
from clew.tasks.base import Example, Message, MissingSplit, Prompt, Reward, Task
from clew.tasks.rows import Row, kind_of, read_rows
from clew.tasks.splits import check_split, content_hash, split_of
from clew.tasks.text import normalise

ROLES = ("system", "user", "assistant", "tool")


@config
class DatasetTask(Task):
    """Rows of JSON lines, JSON, CSV or Parquet files.

    A row is a prompt with its completion, or a conversation of which the last turn of the assistant is the completion.
    A validation or test split comes from its own file, or is cut out of the training file by a hash of the prompts,
    so that equal prompts are never on both sides.
    """

    train: InputPath
    """The file of training rows."""
    validation: InputPath | None = None
    """The file of validation rows."""
    test: InputPath | None = None
    """The file of test rows."""
    validation_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """The share of the training file that is held out for validation, where that has no file."""
    test_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """The share of the training file that is held out for testing, where that has no file."""
    prompt: str = "prompt"
    """The column of prompts."""
    completion: str = "completion"
    """The column of reference answers."""
    messages: str = "messages"
    """The column of conversations; rows that have it need no prompt and completion."""
    text: str = "text"
    """The column of plain texts for pretraining."""
    id: str = "id"
    """The column of ids; without it an id is made from the content."""
    system: str = ""
    """A system message that is put before every prompt; empty for none."""
    format: str = ""
    """A regular expression that a whole completion should match; it gives the reward and metric `format`."""
    format_weight: Annotated[float, Field(ge=0)] = 0.2
    """The weight of the reward `format` beside that of `exact`, which is 1."""
    reward_file: InputPath | None = None
    """A Python file with an own reward, `def reward(example, completion) -> float | None`."""
    reward_function: str = "reward"
    """The name of the function in `reward_file`; it is also the name of the reward and the metric."""
    reward_weight: Annotated[float, Field(ge=0)] = 1.0
    """The weight of the own reward."""

    @model_validator(mode="after")
    def _rules(self) -> DatasetTask:
        if self.validation_fraction + self.test_fraction >= 1:
            raise ValueError("validation_fraction and test_fraction: together they leave nothing to train on")
        if self.validation and self.validation_fraction:
            raise ValueError("validation and validation_fraction: give one of them")
        if self.test and self.test_fraction:
            raise ValueError("test and test_fraction: give one of them")
        try:
            re.compile(self.format)
        except re.error as error:
            raise ValueError(f"format: not a regular expression: {error}") from None
        return self

    def documents(self, split: str) -> Iterator[str]:
        """Yield the texts of a split; none for a split that the data does not have.

        Raises:
            DataError: At the first bad row.
        """
        try:
            path, cut = self._source(split)
        except MissingSplit:
            return
        for place, row in read_rows(path):
            text = _text_of(row, self.text, place, "task.text")
            if not cut or self._split_of(text) == split:
                yield text

    def examples(self, split: str) -> Sequence[Example]:
        """Return the rows of a split, each with a completion.

        Raises:
            MissingSplit: If the data has no such split.
            DataError: If the split is empty, or at the first bad row.
        """
        return self._examples(split, need_completion=True)

    def prompts(self, split: str) -> Sequence[Example]:
        """Return the rows of a split; with an own reward, a row needs no completion."""
        return self._examples(split, need_completion=self.reward_file is None)

    def problems(self, split: str) -> Sequence[Example]:
        """Return what :meth:`prompts` returns."""
        return self.prompts(split)

    def rewards(self) -> Sequence[Reward]:
        """Return ``exact``, ``format`` if there is a pattern, and the user's own."""
        found = [Reward("exact", _exact)]
        if self.format:
            found.append(Reward("format", self._matches, self.format_weight))
        if self.reward_file:
            function = load_object(f"{self.reward_file}:{self.reward_function}")
            found.append(Reward(self.reward_function, function, self.reward_weight))
        return found

    def metrics(self, example: Example, completion: str) -> Mapping[str, float]:
        """Return every reward that applies, and ``contains``: whether the reference occurs in the completion."""
        scores = {reward.name: reward.score(example, completion) for reward in self.rewards()}
        if example.completion is not None:
            scores["contains"] = float(normalise(example.completion) in normalise(completion))
        return {name: score for name, score in scores.items() if score is not None}

    def _matches(self, example: Example, completion: str) -> float:
        return float(re.fullmatch(self.format, completion.strip()) is not None)

    def _source(self, split: str) -> tuple[Path, bool]:
        """Return the file of a split, and whether the split has to be cut out of it."""
        own = {"train": self.train, "validation": self.validation, "test": self.test}[check_split(split)]
        if split != "train" and own is None and not getattr(self, f"{split}_fraction"):
            raise MissingSplit(
                f"the data set has no {split} split",
                where=Path(self.train).name,
                hint=f"set task.{split} to a file, or task.{split}_fraction to a share of the training rows",
            )
        cut = own is None or (split == "train" and self.validation_fraction + self.test_fraction > 0)
        return Path(own or self.train), cut

    def _split_of(self, content: str) -> str:
        return split_of(content, validation=self.validation_fraction, test=self.test_fraction)

    def _examples(self, split: str, *, need_completion: bool) -> list[Example]:
        path, cut = self._source(split)
        found: list[Example] = []
        used: set[str] = set()
        for place, row in read_rows(path):
            prompt, completion = self._parts(row, place, need_completion)
            if cut and self._split_of(repr(prompt)) != split:
                continue
            given = row.get(self.id)
            key = content_hash(repr((prompt, completion)))[:12] if given in (None, "") else str(given)
            name = _unused(key, used)
            found.append(Example(name, self._with_system(prompt), completion, fields=row))
        if not found:
            raise DataError(f"no row falls into the {split} split", where=path.name, hint="raise its fraction")
        return found

    def _parts(self, row: Row, place: str, need_completion: bool) -> tuple[Prompt, str | None]:
        """Return the prompt and the completion of one row, or raise :class:`DataError` with its place."""
        if self.messages in row and self.prompt not in row:
            turns = _turns(row[self.messages], place)
            if turns[-1]["role"] == "assistant":
                return turns[:-1], turns[-1]["content"]
            if need_completion:
                raise DataError(f"the last turn is of the {turns[-1]['role']}, not of the assistant", where=place)
            return turns, None
        prompt = _text_of(row, self.prompt, place, "task.prompt")
        if not need_completion and row.get(self.completion) is None:
            return prompt, None
        return prompt, _text_of(row, self.completion, place, "task.completion")

    def _with_system(self, prompt: Prompt) -> Prompt:
        if not self.system:
            return prompt
        turns = [Message(role="user", content=prompt)] if isinstance(prompt, str) else prompt
        return [Message(role="system", content=self.system), *turns]


def _unused(name: str, used: set[str]) -> str:
    """Return the name, numbered if it is taken, and mark it as used."""
    candidates = (name if number == 1 else f"{name}#{number}" for number in itertools.count(1))
    found = next(candidate for candidate in candidates if candidate not in used)
    used.add(found)
    return found


def _exact(example: Example, completion: str) -> float | None:
    """Whether the completion is the reference, up to case and white space; None without a reference."""
    if example.completion is None:
        return None
    return float(normalise(completion) == normalise(example.completion))


def _text_of(row: Row, column: str, place: str, option: str) -> str:
    if column not in row:
        hint = did_you_mean(column, row)
        raise DataError(f"no column {column!r}", where=place, hint=f"{hint} ({option} sets it)" if hint else "")
    value = row[column]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise DataError(f"column {column!r} holds {kind_of(value)}, not text", where=place)
    if not value.strip():
        raise DataError(f"column {column!r} is empty", where=place)
    return value


def _turns(value: Any, place: str) -> list[Message]:
    """Check a conversation and return it without any further keys."""
    if not isinstance(value, list) or not value:
        raise DataError("the messages are not a list of turns", where=place)
    turns: list[Message] = []
    for number, turn in enumerate(value, start=1):
        if not isinstance(turn, dict) or not {"role", "content"} <= turn.keys():
            raise DataError(f"turn {number} needs a role and a content", where=place)
        if turn["role"] not in ROLES:
            raise DataError(
                f"turn {number} has the unknown role {turn['role']!r}", where=place, hint=f"known: {', '.join(ROLES)}"
            )
        if not isinstance(turn["content"], str):
            raise DataError(f"turn {number}: the content is not text", where=place)
        turns.append(Message(role=turn["role"], content=turn["content"]))
    if len(turns) == 1 and turns[0]["role"] == "assistant":
        raise DataError("the conversation has no prompt", where=place)
    return turns
