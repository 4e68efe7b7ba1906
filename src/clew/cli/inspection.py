"""``clew inspect``: have a run look at every sample of a split, and say what it has seen."""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from clew.cli.finding import find_run, workspace_of
from clew.cli.looking import Looking
from clew.cli.text import figures, number, print_table
from clew.errors import MissingLibrary
from clew.logs.logger import Logger
from clew.runs import Run
from clew.runs.states import why_not_live
from clew.session.live import LiveRun, When

if TYPE_CHECKING:
    from clew.cli.parser import Parser
    from clew.inspection.published import Inspection


def configure(parser: Parser, verb: str) -> None:
    """Add the arguments."""
    parser.add_argument("name", metavar="RUN", help="alive or not")
    parser.add_argument("--split", default="train", help="whose samples (default: train)")
    parser.add_argument("--at", metavar="STEP", help="with the weights of that step, or of a tag, best or last")
    parser.add_argument("--clusters", type=int, metavar="N", help="sort them into so many (default: 8; 0 into none)")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N samples")
    parser.add_argument("--no-tokens", action="store_true", help="leave the losses of single tokens out")
    parser.add_argument("--csv", action="store_true", help="write samples.csv as well")
    parser.add_argument("--wait", action="store_true", help="return when the outcome is known, as it does without this")
    parser.add_argument("--deadline", type=float, metavar="SECONDS", help="wait so long at the most")


def main(arguments: Namespace) -> int:
    """Ask a live run, or a fork that is made for it; then print the figures and where everything is."""
    workspace = workspace_of(arguments)
    run = find_run(workspace, arguments.name, purpose="has no weights of its own")
    seconds = math.inf if arguments.deadline is None else arguments.deadline
    if _is_for_the_run(run, arguments.at):
        result = _ask(run, _given(arguments), int(arguments.at) if arguments.at else None, seconds)
    else:
        from clew.cli.looking_back import look_back

        result = look_back(run, _given(arguments), arguments.at, workspace, seconds)
    from clew.inspection.published import inspections

    found = next(one for one in inspections(run.path) if one.path == run.path / result["path"])
    if arguments.csv:
        found.write_csv(found.path / "samples.csv")
    _draw(found)
    _print(run, found)
    return 0


def _given(arguments: Namespace) -> dict[str, Any]:
    given = {"split": arguments.split, "clusters": arguments.clusters, "limit": arguments.limit}
    tokens = {"tokens": False} if arguments.no_tokens else {}
    return {name: value for name, value in given.items() if value is not None} | tokens


def _is_for_the_run(run: Run, at: str | None) -> bool:
    """Whether the run itself is asked: it is alive, and there is no checkpoint yet of what is wanted."""
    if why_not_live(run.state):
        return False
    if at is None:
        return True
    from clew.checkpoints import CheckpointStore

    return at.isdigit() and all(one.step != int(at) for one in CheckpointStore(run.checkpoints).all())


def _ask(run: Run, args: Mapping[str, Any], at: int | None, seconds: float) -> Mapping[str, Any]:
    with Looking(run) as looking:
        looking.command = LiveRun(run).send("inspect", args, When(at)).id
        looking.wait(seconds)
    return looking.result()


def _draw(found: Inspection) -> None:
    """Draw the plane of the embeddings; without matplotlib, or without embeddings, there is no picture."""
    if found.summary["projection"] is None:
        return
    from clew.inspection.plots import Cloud, draw

    x, y, _ = found.points()
    title = f"{found.split} at step {found.step}"
    cloud = Cloud(x, y, found.numbers("loss"), title, ("first component", "second component", "loss in nats"))
    try:
        (found.path / "projection.png").write_bytes(draw(cloud))
    except MissingLibrary as error:
        Logger("clew.cli").warning(f"no picture was drawn: {error.one_line()}")


def _print(run: Run, found: Inspection) -> None:
    summary = found.summary
    print(f"{run.id}: {summary['samples']:,} samples of {found.split} at step {found.step}")
    if summary["loss"]:
        shown = {name: summary["loss"][name] for name in ("mean", "p05", "p50", "p95", "max")}
        print(f"loss: {figures(shown)}")
    if summary["clusters"]:
        print(f"\nclusters by {summary['clustered_by']}")
        rows = [
            (f"{one['cluster']}", f"{one['samples']:,}", _figure(one["loss"]), _figure(one["margin"]))
            for one in summary["clusters"]
        ]
        print_table(("cluster", "samples", "loss", "margin"), rows)
        print()
    print(found.path)


def _figure(value: float | None) -> str:
    return "–" if value is None else number(value)
