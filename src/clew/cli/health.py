"""``clew health``: how a training is doing, or did."""

from __future__ import annotations

import json
from argparse import Namespace
from typing import TYPE_CHECKING, Any

from clew.cli.finding import find_run, workspace_of
from clew.errors import ClewError, UserError
from clew.health.journal import completed, journal_report
from clew.health.text import render
from clew.logs.logger import Logger
from clew.runs import Run
from clew.runs.states import why_not_live
from clew.session.live import LiveRun

if TYPE_CHECKING:
    from clew.cli.parser import Parser

_PATIENCE = 60.0


def configure(parser: Parser, verb: str) -> None:
    """Add the arguments."""
    parser.add_argument("name", metavar="RUN", help="a live one is asked; of one that is over, the journal is")
    parser.add_argument("--fresh", action="store_true", help="fail if the run itself does not answer now")
    parser.add_argument("--check", action="store_true", help="exit code 1 if it is bad")
    parser.add_argument("--json", action="store_true", help="for programs: all numbers, of every layer")
    parser.add_argument(
        "--deadline",
        type=float,
        metavar="SECONDS",
        default=_PATIENCE,
        help="wait so long at the most (default: %(default)g)",
    )


def main(arguments: Namespace) -> int:
    """Print the verdict and the numbers behind it."""
    run = find_run(workspace_of(arguments), arguments.name, purpose="has no health of its own")
    if not (reason := why_not_live(run.state)):
        _ask(run, arguments)
    elif arguments.fresh:
        raise UserError(f"there is nobody to ask: {reason}", where=run.id, hint="without --fresh its journal is read")
    report = completed(_newest(run), journal_report(run.events()))
    if arguments.json:
        print(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        print(render(report, run.id))
    return 1 if arguments.check and report["verdict"] == "bad" else 0


def _ask(run: Run, arguments: Namespace) -> None:
    """Let a live run look at itself; what it says goes into its journal. Of one that cannot, the journal is read."""
    try:
        LiveRun(run).send("health", {}, wait=arguments.deadline)
    except ClewError as error:
        if arguments.fresh:
            raise
        Logger("clew.cli").warning(f"{error.one_line()}; this is what its journal says")


def _newest(run: Run) -> dict[str, Any] | None:
    """The newest report in the journal, with the step that it is of; None where there is none."""
    found = None
    for event in run.events("health"):
        if isinstance(event.get("report"), dict):
            found = {**event["report"], "step": event.get("step")}
    return found
