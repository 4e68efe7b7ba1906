"""``clew graph``: draw the stages of a pipeline."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from clew import api
from clew.cli.finding import workspace_of
from clew.errors import UserError
from clew.jobs import LoadedJob
from clew.plans import find_plan
from clew.plans.drawing import as_mermaid, as_svg, as_text
from clew.plans.graph import Graph, graph_of, states_of
from clew.runs import Workspace

if TYPE_CHECKING:
    from clew.cli.parser import Parser

_FORMATS = {"mermaid": as_mermaid, "svg": as_svg, "text": as_text}


def configure(parser: Parser, verb: str) -> None:
    """Add the arguments."""
    parser.add_argument("what", metavar="FILE|PIPELINE", help="a file, or a pipeline of the workspace with its states")
    parser.add_argument("--format", choices=list(_FORMATS), default="text", help="default: text")
    parser.add_argument("-o", "--output", metavar="FILE", help="write there instead of printing")


def main(arguments: Namespace) -> int:
    """Print the picture, or write it into a file."""
    picture = _FORMATS[arguments.format](_graph(arguments.what, workspace_of(arguments)))
    if not arguments.output:
        print(picture, end="")
        return 0
    try:
        Path(arguments.output).write_text(picture, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write the file: {error.strerror}", where=arguments.output) from error
    print(f"{arguments.output}: written")
    return 0


def _graph(what: str, workspace: Workspace) -> Graph:
    """A name of the workspace goes before a file: a file's name has a dot and an ending."""
    if plan := find_plan(workspace, what):
        if not (plan.path / "tree.json").is_file():
            raise UserError("this pipeline was never started", where=plan.id, hint="start it with clew run FILE")
        return graph_of(plan.pipeline, states_of(plan, workspace))
    if not Path(what).is_file():
        hint = "clew ls shows what there is"
        raise UserError(f"there is no file and no pipeline {what!r}", where=str(workspace.root), hint=hint)
    work = api.read(what, workspace=workspace)
    if isinstance(work, LoadedJob):
        raise UserError("this is a job, not a pipeline", where=what, hint="there is nothing to draw about one job")
    return graph_of(work)
