"""``clew verify`` and ``clew replay``: whether two runs are the same, and whether a run can be repeated."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from clew.cli.finding import find_run, workspace_of

if TYPE_CHECKING:
    from clew.cli.parser import Parser
    from clew.lineage.compare import Comparison

_PURPOSE = "has no steps of its own"


def configure(parser: Parser, verb: str) -> None:
    """Add the arguments of a verb."""
    if verb == "verify":
        parser.add_argument("first", metavar="RUN", help="a run")
        parser.add_argument("second", metavar="RUN", help="another one")
    else:
        parser.add_argument("first", metavar="RUN", help="the run to be repeated")
        parser.add_argument("--name", dest="child", default="", help="the name of the new run")


def main(arguments: Namespace) -> int:
    """Compare, and return 0 when nothing differs."""
    workspace = workspace_of(arguments)
    first = find_run(workspace, arguments.first, purpose=_PURPOSE)
    if arguments.verb == "verify":
        from clew.lineage.compare import compare

        second = find_run(workspace, arguments.second, purpose=_PURPOSE)
        return _conclude(compare(first, second), first.id, second.id)
    from clew.lineage.replay import replay

    found = replay(first, name=arguments.child, tell=print)
    last = found.runs[-1].id
    if found.state not in ("completed", "stopped") and found.comparison.difference is None:
        print(f"{last}: {found.state}, so the replay ended early; clew show {last}")
        return 1
    code = _conclude(found.comparison, first.id, last)
    for reason in found.unlike if code else ():
        print(f"  {reason}")
    return code


def _conclude(found: Comparison, first: str, second: str) -> int:
    if found.difference is not None:
        print(f"{first} and {second} differ at {found.difference}")
        return 1
    if not found.is_conclusive:
        print(f"{first} and {second} have no step in common of which both tell something")
        return 1
    print(
        f"{first} and {second} are the same up to step {found.steps}: "
        f"{found.values} figures and {found.digests} hashes of the state"
    )
    return 0
