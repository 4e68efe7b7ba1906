"""``clew fork``: a child run that goes on from where its parent is or was."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from clew import api
from clew.cli.finding import find_run, workspace_of
from clew.cli.latest import latest
from clew.config.problems import show
from clew.errors import UserError
from clew.lineage.fork import Forked
from clew.lineage.words import known_settings
from clew.logs.logger import Logger
from clew.runs import ACTIVE, Run
from clew.session.settings import STEPS

if TYPE_CHECKING:
    from clew.cli.parser import Parser


def configure(parser: Parser, verb: str) -> None:
    """Add the arguments."""
    parser.add_argument("name", metavar="RUN", help="the parent, alive or not")
    parser.add_argument(
        "words", nargs="*", metavar="key=value", help="what the child does otherwise: lr=1e-4, lr_mul=0.5, ..."
    )
    parser.add_argument("--at", default=None, metavar="STEP", help="from there: a step, a tag, best or last")
    parser.add_argument("--name", dest="child", default="", help="the child's name")
    parser.add_argument("--select", default="", metavar="RECIPE", help="train on a part of the data: 'hardest 15%%'")
    parser.add_argument("--order", default="", help="shuffled, given, easy-first or hard-first")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--switch", action="store_true", help="the parent's process goes on as the child")
    how.add_argument("--hold", action="store_true", help="only prepare it; clew resume starts it")
    how.add_argument("--on", default="local", metavar="TARGET", help="where it runs (there is local)")
    parser.add_argument("--deadline", type=float, metavar="SECONDS", help="wait so long for a live parent at the most")


def main(arguments: Namespace) -> int:
    """Make the child, start it, and say how to get at it."""
    workspace = workspace_of(arguments)
    if arguments.on != "local":
        raise UserError(f"there is no target {arguments.on!r}", hint="there is local")
    parent = find_run(workspace, arguments.name, purpose="has no steps of its own")
    if (arguments.at or "").isdigit() and parent.state in ACTIVE and int(arguments.at) > (latest(parent).step or 0):
        Logger("clew.cli").info(f"this waits until {parent.id} comes to step {arguments.at}; Ctrl-C leaves it alone")
    made = api.fork(
        parent,
        at=arguments.at,
        name=arguments.child,
        overrides=arguments.words,
        select=arguments.select,
        order=arguments.order,
        switch=arguments.switch,
        hold=arguments.hold,
        wait=True if arguments.deadline is None else arguments.deadline,
        workspace=workspace,
    )
    assert made.child is not None, "it was waited for"
    info = made.child.info
    print(f"{made.name}: forked from {parent.id} at step {info.fork_step}")
    for key, value in info.changes.items():
        print(f"  {key} = {show(value)}")
    for wish in made.wishes:
        print(f"  at its first step: {wish.verb} {' '.join(f'{key}={value}' for key, value in wish.args.items())}")
    if key := _more_steps(parent, made):
        print(f"  no step is left to make; {key}=N makes some")
    if arguments.hold:
        print(f"  clew resume {made.name} starts it")
    elif arguments.switch:
        print(f"  the process of {parent.id} goes on as {made.name}; clew resume {parent.id} goes on with {parent.id}")
    else:
        print(f"  it runs; clew resume {made.name} follows it")
    return 0


def _more_steps(parent: Run, made: Forked) -> str:
    """What must be said for a child that begins where its parent ends; empty where there are steps left."""
    assert made.child is not None, "it was waited for"
    info, total = made.child.info, latest(parent).total
    if total is None or info.fork_step is None or info.fork_step < total:
        return ""
    key = known_settings(parent).get(STEPS)
    is_said = key in info.changes or any(STEPS in wish.args for wish in made.wishes)
    return "" if key is None or is_said else key or STEPS
