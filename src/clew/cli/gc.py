"""``clew gc``: delete what crashed processes have left behind, and checkpoints that count no longer."""

from __future__ import annotations

import time
from argparse import Namespace
from typing import TYPE_CHECKING

from clew.checkpoints.aside import left_aside
from clew.checkpoints.leftovers import leftovers, remove
from clew.cli.finding import workspace_of
from clew.cli.text import size

if TYPE_CHECKING:
    from clew.cli.parser import Parser


def configure(parser: Parser, verb: str) -> None:
    """Add the argument."""
    parser.add_argument("--yes", action="store_true", help="delete it; without, it is only said")


def main(arguments: Namespace) -> int:
    """Say what can go and how much space it takes, or delete it."""
    workspace = workspace_of(arguments)
    found = [*leftovers(workspace, time.time()), *left_aside(workspace)]
    if not found:
        print(f"nothing was left behind in {workspace.root}")
        return 0
    for one in found:
        if arguments.yes:
            remove(one)
        print(f"{one.path.relative_to(workspace.root)}: {one.what}, {size(one.bytes)}")
    total = size(sum(one.bytes for one in found))
    print(f"{total} {'freed' if arguments.yes else 'can go; --yes deletes it'}")
    return 0
