"""``clew store``: the index of all runs that SQL can ask."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from clew.cli.finding import workspace_of
from clew.cli.text import print_table, size
from clew.errors import UserError
from clew.runs import Workspace

if TYPE_CHECKING:
    from clew.cli.parser import Parser
    from clew.store.database import Store

_NAMES_SHOWN = 5


def configure(parser: Parser, verb: str) -> None:
    """Add the arguments."""
    parser.add_argument(
        "action",
        choices=("sync", "rebuild", "status"),
        help="take in what is new; make it again from the runs; say what it holds",
    )
    add_store_option(parser)
    parser.add_argument("--take-over", action="store_true", help="with rebuild: replace the index of another workspace")


def add_store_option(parser: Parser) -> None:
    """Add the option that says which database is meant."""
    parser.add_argument(
        "--store",
        metavar="URL",
        help="the database (default: $CLEW_STORE, or .clew/store.sqlite in the workspace); "
        "a URL with a password belongs into the variable, for others can see command lines",
    )


def main(arguments: Namespace) -> int:
    """Carry out one action."""
    from clew.store import open_store

    workspace = workspace_of(arguments)
    store = open_store(workspace, arguments.store)
    if arguments.take_over and arguments.action != "rebuild":
        raise UserError("--take-over belongs to rebuild", where="store")
    if arguments.action == "status":
        return _status(store, workspace)
    from clew.store.ingest import rebuild, sync

    if arguments.action == "sync":
        done = sync(store, workspace)
        print(
            f"{store.location.shown}: {_count(done.runs)} with something new, {size(done.bytes)} of journals taken in"
        )
    else:
        done = rebuild(store, workspace, take_over=arguments.take_over)
        print(f"{store.location.shown}: made again from {_count(done.runs)}, {size(done.bytes)} of journals")
    return 0


def _status(store: Store, workspace: Workspace) -> int:
    from clew.store.ingest import status

    now = status(store, workspace)
    print_table(("table", "rows"), ((name, str(number)) for name, number in now.rows.items()))
    print(f"\nstore: {store.location.shown}")
    if now.behind:
        print(f"something new in {_some(now.behind)}: clew store sync takes it in")
    else:
        print("nothing new in the runs")
    if now.gone:
        print(f"without a directory: {_some(now.gone)}; clew store rebuild leaves them out")
    return 0


def _count(number: int) -> str:
    return "1 run" if number == 1 else f"{number} runs"


def _some(names: list[str]) -> str:
    rest = len(names) - _NAMES_SHOWN
    more = f" and {rest} more" if rest > 0 else ""
    return f"{_count(len(names))} ({', '.join(names[:_NAMES_SHOWN])}{more})"
