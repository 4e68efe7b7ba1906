"""A report on a file of data: what is bad in it, what is there twice, how long it is, how a chat template takes it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clew.errors import DataError, UserError
from clew.tasks.base import Example
from clew.tasks.dataset import DatasetTask, Entry, Part
from clew.tasks.render import Chat, render_example, uses_chat
from clew.tasks.rows import scan_rows


@dataclass(frozen=True)
class Twin:
    """A row that says what an earlier one says."""

    place: str
    first: str
    """The place of the earlier row."""
    other_answer: bool
    """Whether only the prompts are equal, and the answers are not."""


@dataclass(frozen=True)
class Finding:
    """Something that is wrong with the rows once a tokenizer has made tokens of them."""

    what: str
    places: tuple[str, ...]


@dataclass
class Inspection:
    """What was found in a file."""

    name: str
    part: Part
    num_good: int = 0
    bad: list[DataError] = field(default_factory=list)
    twins: list[Twin] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    """Of each good row: characters, or tokens when there is a tokenizer."""
    unit: str = "characters"
    findings: list[Finding] = field(default_factory=list)

    @property
    def is_bad(self) -> bool:
        """Whether a job could not use the file as it stands; what is there twice does not stop one."""
        return bool(self.bad or self.findings)


def inspect(task: DatasetTask, tokenizer: Any = None, chat: Chat = "auto", max_length: int | None = None) -> Inspection:
    """Read the training file of a task to its end, whatever is wrong with it.

    Args:
        task: Names the file and its columns.
        tokenizer: A Hugging Face tokenizer; None looks at the texts only.
        chat: Whether its chat template is used.
        max_length: Longest example in tokens; None knows no limit. Without a tokenizer it is not looked at.

    Raises:
        DataError: If the file as a whole cannot be read.
    """
    path = Path(task.train)
    found = Inspection(path.name, _part(task, path))
    entries: list[Entry] = []
    for entry in task.scan(path, found.part):
        if isinstance(entry, DataError):
            found.bad.append(entry)
        else:
            entries.append(entry)
    found.num_good = len(entries)
    found.twins = list(_twins(entries))
    found.lengths = [entry.length for entry in entries]
    if tokenizer is not None:
        found.unit = "tokens"
        tokenize = _documents if found.part == "documents" else _examples
        found.lengths, problems = tokenize(entries, task, tokenizer, chat)
        problems += [
            (entry.place, f"longer than {max_length} tokens")
            for entry, length in zip(entries, found.lengths, strict=True)
            if max_length is not None and length > max_length
        ]
        found.findings = _grouped(problems)
    return found


def _part(task: DatasetTask, path: Path) -> Part:
    """Texts for pretraining are told from examples by the first row that can be read."""
    for _, row in scan_rows(path):
        if not isinstance(row, DataError):
            return "documents" if task.text in row and not {task.prompt, task.messages} & row.keys() else "examples"
    return "examples"


def _twins(entries: Iterable[Entry]) -> Iterator[Twin]:
    rows: dict[str, str] = {}
    prompts: dict[str, str] = {}
    for entry in entries:
        prompt, both = repr(entry.prompt), repr((entry.prompt, entry.completion))
        if both in rows:
            yield Twin(entry.place, rows[both], other_answer=False)
        elif prompt in prompts:
            yield Twin(entry.place, prompts[prompt], other_answer=True)
        rows.setdefault(both, entry.place)
        prompts.setdefault(prompt, entry.place)


Problems = list[tuple[str, str]]


def _documents(entries: Sequence[Entry], task: DatasetTask, tokenizer: Any, chat: Chat) -> tuple[list[int], Problems]:
    return [len(tokenizer(entry.prompt)["input_ids"]) for entry in entries], []


def _examples(entries: Sequence[Entry], task: DatasetTask, tokenizer: Any, chat: Chat) -> tuple[list[int], Problems]:
    """Label the examples as the trainer does; one that its template refuses has no length."""
    from clew.tasks.labels import label

    uses_chat(tokenizer, chat)  # a chat template that is not there is no row's fault
    problems: Problems = []
    usable: dict[str, Example] = {}
    for entry in entries:
        example = Example(entry.place, task.prompt_of(entry), entry.completion)
        if refusal := _refusal(example, tokenizer, chat):
            problems.append((entry.place, refusal))
        else:
            usable[entry.place] = example
    lengths = {}
    for one in label(list(usable.values()), tokenizer, chat) if usable else ():
        lengths[one.id] = len(one.ids)
        problems += [(one.id, problem) for problem in one.problems(tokenizer)]
    return [lengths.get(entry.place, 0) for entry in entries], problems


def _refusal(example: Example, tokenizer: Any, chat: Chat) -> str:
    try:
        render_example(example, tokenizer, chat)
    except UserError as error:
        return error.what
    return ""


def _grouped(problems: Problems) -> list[Finding]:
    """Put places with the same problem together."""
    groups: dict[str, list[str]] = {}
    for place, what in problems:
        groups.setdefault(what, []).append(place)
    return [Finding(what, tuple(places)) for what, places in groups.items()]


@dataclass(frozen=True)
class Bin:
    """A bar of a histogram, of lengths from ``low`` to ``high``, both included."""

    low: int
    high: int
    count: int


def histogram(lengths: Sequence[int], num_bins: int = 8) -> list[Bin]:
    """Count lengths in bins of equal width, which is a round number.

    Args:
        lengths: At least one.
        num_bins: At most this many bins.
    """
    low, high = min(lengths), max(lengths)
    width = next(size for size in _round_numbers() if (high // size) - (low // size) < num_bins)
    counts: dict[int, int] = dict.fromkeys(range(low // width, high // width + 1), 0)
    for length in lengths:
        counts[length // width] += 1
    return [Bin(number * width, (number + 1) * width - 1, count) for number, count in counts.items()]


def _round_numbers() -> Iterator[int]:
    """Yield 1, 2, 5, 10, 20, 50 and so on."""
    power = 1
    while True:
        yield from (power, 2 * power, 5 * power)
        power *= 10
