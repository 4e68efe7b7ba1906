"""The user's own data: prompts with completions, conversations, or plain text, from files."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from clew.config import InputPath, config
from clew.config.plugins import load_object
from clew.errors import DataError
from clew.tasks.base import Example, Message, MissingSplit, Prompt, Reward, Task
from clew.tasks.columns import text_of, turns_of
from clew.tasks.rows import Row, scan_rows
from clew.tasks.splits import check_split, content_hash, split_of
from clew.tasks.text import normalise

Part = Literal["examples", "prompts", "documents"]


@dataclass(frozen=True)
class Entry:
    """What one row says."""

    place: str
    """Where the row is, such as ``train.jsonl:17``."""
    row: Row
    prompt: Prompt
    """The prompt; of a document, the text."""
    completion: str | None = None

    @property
    def length(self) -> int:
        """Characters of the prompt with its completion."""
        turns = [self.prompt] if isinstance(self.prompt, str) else [turn["content"] for turn in self.prompt]
        return sum(map(len, turns)) + len(self.completion or "")


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
    on_bad_row: Literal["error", "skip"] = "error"
    """What a row that cannot be used does: end the run before it starts, or be left out and counted."""
    order: Literal["as_is", "shortest_first", "longest_first"] = "as_is"
    """The order of training examples; unless as_is, they are trained on in this order instead of shuffled."""
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
        """Yield the texts of a split, as they stand in the file; none for a split that the data does not have.

        Raises:
            DataError: At the first bad row, unless bad rows are skipped.
        """
        try:
            path, cut = self._source(split)
        except MissingSplit:
            return
        for entry in self._good(path, "documents"):
            text = str(entry.prompt)
            if not cut or self._split_of(text) == split:
                yield text

    def examples(self, split: str) -> Sequence[Example]:
        """Return the rows of a split, each with a completion.

        Raises:
            MissingSplit: If the data has no such split.
            DataError: If the split is empty, or at the first bad row, unless bad rows are skipped.
        """
        return self._examples(split, "examples")

    def prompts(self, split: str) -> Sequence[Example]:
        """Return the rows of a split; with an own reward, a row needs no completion."""
        return self._examples(split, "prompts")

    def skipped(self, part: str, split: str) -> Sequence[DataError]:
        """Return the rows that are left out because they are bad, as errors with their places.

        Where a split is cut out of the training file, these are the bad rows of the file: a row that cannot be read
        belongs to no split.
        """
        if self.on_bad_row == "error":
            return ()
        try:
            path, _ = self._source(split)
        except MissingSplit:
            return ()
        kinds: dict[str, Part] = {"documents": "documents", "examples": "examples"}
        found = self.scan(path, kinds.get(part, "prompts"))
        return [entry for entry in found if isinstance(entry, DataError)]

    def keeps_order(self) -> bool:
        """Return whether the order of the training examples means something."""
        return self.order != "as_is"

    def scan(self, path: Path, part: Part) -> Iterator[Entry | DataError]:
        """Yield what each row of a file says, and for a bad row the error, whatever ``on_bad_row`` says.

        Raises:
            DataError: If the file as a whole cannot be read.
        """
        for place, row in scan_rows(path):
            if isinstance(row, DataError):
                yield row
                continue
            try:
                yield self._entry(place, row, part)
            except DataError as error:
                yield error

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

    def _good(self, path: Path, part: Part) -> Iterator[Entry]:
        """Yield the rows that can be used; a bad one is left out or raised, as the config says."""
        for entry in self.scan(path, part):
            if isinstance(entry, Entry):
                yield entry
            elif self.on_bad_row == "error":
                raise entry

    def _examples(self, split: str, part: Part) -> list[Example]:
        path, cut = self._source(split)
        entries = [entry for entry in self._good(path, part) if not cut or self._split_of(repr(entry.prompt)) == split]
        if not entries:
            raise self._nothing(path, part, split)
        if split == "train" and self.order != "as_is":
            entries.sort(key=lambda entry: entry.length, reverse=self.order == "longest_first")
        used: set[str] = set()
        return [self._example(entry, used) for entry in entries]

    def _example(self, entry: Entry, used: set[str]) -> Example:
        given = entry.row.get(self.id)
        key = content_hash(repr((entry.prompt, entry.completion)))[:12] if given in (None, "") else str(given)
        return Example(_unused(key, used), self.prompt_of(entry), entry.completion, fields=entry.row)

    def _nothing(self, path: Path, part: Part, split: str) -> DataError:
        """Say why a split is empty."""
        bad = self.skipped(part, split)
        if not bad:
            return DataError(f"no row falls into the {split} split", where=path.name, hint="raise its fraction")
        return DataError(
            f"no row is left in the {split} split; {len(bad)} bad rows were skipped",
            where=path.name,
            hint=f"the first: {bad[0]}",
        )

    def _entry(self, place: str, row: Row, part: Part) -> Entry:
        """Return what a row says, or raise :class:`DataError` with its place."""
        if part == "documents":
            return Entry(place, row, text_of(row, self.text, place, "task.text"))
        need_completion = part == "examples" or self.reward_file is None
        if self.messages in row and self.prompt not in row:
            turns = turns_of(row[self.messages], place)
            if turns[-1]["role"] == "assistant":
                return Entry(place, row, turns[:-1], turns[-1]["content"])
            if need_completion:
                raise DataError(f"the last turn is of the {turns[-1]['role']}, not of the assistant", where=place)
            return Entry(place, row, turns)
        prompt = text_of(row, self.prompt, place, "task.prompt")
        if not need_completion and row.get(self.completion) is None:
            return Entry(place, row, prompt)
        return Entry(place, row, prompt, text_of(row, self.completion, place, "task.completion"))

    def prompt_of(self, entry: Entry) -> Prompt:
        """Return the prompt of a row, with the system message before it if there is one."""
        if not self.system:
            return entry.prompt
        turns = [Message(role="user", content=entry.prompt)] if isinstance(entry.prompt, str) else entry.prompt
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
