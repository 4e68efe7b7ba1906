"""``clew logs``: what a run's worker has printed."""

from __future__ import annotations

import codecs
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from clew.cli.finding import find_run, workspace_of
from clew.errors import UserError
from clew.runs import FINAL, Run, State

if TYPE_CHECKING:
    from clew.cli.parser import Parser

_POLL_SECONDS = 0.1
_CHUNK_BYTES = 1 << 16


def configure(parser: Parser, verb: str) -> None:
    """Add the arguments."""
    parser.add_argument("name", metavar="RUN", help="a run; a stage of a pipeline is called PIPELINE.STAGE")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the run ends")
    parser.add_argument("--attempt", type=int, metavar="N", help="which attempt (default: the newest)")


def main(arguments: Namespace) -> int:
    """Print a log."""
    run = find_run(workspace_of(arguments), arguments.name, purpose="has no log of its own")
    newest = run.states.read().attempt
    attempt = newest if arguments.attempt is None else arguments.attempt
    path = run.log_path(attempt)
    if not path.exists():
        raise UserError(*_no_log(newest, attempt), where=run.id)
    _copy(path, until=lambda: not arguments.follow or attempt != run.states.read().attempt or _is_over(run))
    return 0


def _no_log(newest: int, attempt: int) -> tuple[str]:
    if newest == 0:
        return ("it has not been started, so there is no log",)
    return (f"there is no log of attempt {attempt}; the newest is {newest}",)


def _is_over(run: Run) -> bool:
    return run.state in FINAL | {State.UNKNOWN, State.CREATED}


def _copy(path: Path, *, until: Callable[[], bool]) -> None:
    """Copy a growing file to stdout.

    Args:
        path: The file.
        until: Whether nothing more will come; asked before each reading, so what was written before is still read.
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    with path.open("rb") as stream:
        while True:
            last = until()
            while chunk := stream.read(_CHUNK_BYTES):
                sys.stdout.write(decoder.decode(chunk))
            sys.stdout.flush()
            if last:
                return
            time.sleep(_POLL_SECONDS)
