"""``clew data check FILE``: everything that is wrong with a file of data, not only the first of it."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from clew.cli.finding import workspace_of

if TYPE_CHECKING:
    from clew.cli.parser import Parser
    from clew.errors import DataError
    from clew.tasks.inspection import Inspection

_MOST = 20
"""Lines of one kind that are printed without ``--all``."""
_BAR = 40
_COLUMNS = ("prompt", "completion", "messages", "text")


def configure(parser: Parser, verb: str) -> None:
    """Add the arguments of the verb."""
    parser.add_argument("action", choices=("check",), help="report on a file")
    parser.add_argument("file", metavar="FILE", help="JSON lines, JSON, CSV, TSV, Parquet, or plain lines")
    for column in _COLUMNS:
        parser.add_argument(f"--{column}", metavar="COLUMN", default=column, help=f"the column (default: {column})")
    parser.add_argument("--model", metavar="MODEL", help="count its tokens, and look at what its chat template does")
    parser.add_argument("--chat", choices=("auto", "always", "never"), default="auto", help="as in the jobs' configs")
    parser.add_argument("--max-length", type=int, metavar="TOKENS", help="report longer rows; needs --model")
    parser.add_argument("--all", action="store_true", help=f"print all places, not the first {_MOST} of each kind")


def main(arguments: Namespace) -> int:
    """Print the report; 1 if a job could not use the file as it is."""
    from clew.errors import UserError
    from clew.tasks.dataset import DatasetTask
    from clew.tasks.inspection import inspect

    if arguments.max_length is not None and arguments.model is None:
        raise UserError("--max-length counts tokens", hint="add --model, whose tokens are counted")
    task = DatasetTask(
        train=str(Path(arguments.file).absolute()), **{name: getattr(arguments, name) for name in _COLUMNS}
    )
    found = inspect(task, _tokenizer(arguments), arguments.chat, arguments.max_length)
    for line in _report(found, None if arguments.all else _MOST):
        print(line)
    return 1 if found.is_bad else 0


def _tokenizer(arguments: Namespace) -> Any:
    if arguments.model is None:
        return None
    from clew.models.loading import load_tokenizer
    from clew.models.source import resolve

    return load_tokenizer(resolve(arguments.model, workspace_of(arguments).runs))


def _report(found: Inspection, most: int | None) -> Iterable[str]:
    kind = "good text" if found.part == "documents" else "good example"
    yield f"{found.name}: {_count(found.num_good, kind)}, {_count(len(found.bad), 'bad row')}"
    yield from _places([_said_here(error) for error in found.bad], most)
    same = [f"{twin.place} is the same as {twin.first}" for twin in found.twins if not twin.other_answer]
    other = [f"{twin.place} asks what {twin.first} asks" for twin in found.twins if twin.other_answer]
    for what, lines in (("duplicates", same), ("equal prompts with other answers", other)):
        yield f"{what}: {len(lines)}"
        yield from _places(lines, most)
    yield from _lengths(found)
    for finding in found.findings:
        yield f"{len(finding.places)} × {finding.what}"
        yield from _places(finding.places, most)
    if found.unit == "tokens" and not found.findings:
        yield "tokens: every row can be trained on"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _said_here(error: DataError) -> str:
    """Name options as this command line knows them, and indent the hint."""
    return str(error).replace("(task.", "(--").replace("\n", "\n  ")


def _places(lines: Iterable[str], most: int | None) -> Iterable[str]:
    some = list(lines)
    yield from (f"  {line}" for line in some[:most])
    if most is not None and len(some) > most:
        yield f"  and {len(some) - most} more (--all shows them)"


def _lengths(found: Inspection) -> Iterable[str]:
    from clew.tasks.inspection import histogram

    lengths = [length for length in found.lengths if length]
    if not lengths:
        return
    yield f"length in {found.unit}: {min(lengths)} to {max(lengths)}, median {median(lengths):g}"
    bins = histogram(lengths)
    width = max(len(f"{one.low}-{one.high}") for one in bins)
    largest = max(one.count for one in bins)
    for one in bins:
        bar = "#" * -(-one.count * _BAR // largest)
        yield f"  {f'{one.low}-{one.high}':>{width}}  {one.count:>6}  {bar}".rstrip()
