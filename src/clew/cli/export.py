"""``clew export``: a run as files for other programs."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from clew.cli.finding import find_run, workspace_of
from clew.cli.store import add_store_option
from clew.errors import UserError

if TYPE_CHECKING:
    from clew.cli.parser import Parser


def configure(parser: Parser, verb: str) -> None:
    """Add the arguments."""
    parser.add_argument("name", metavar="RUN", help="which run")
    parser.add_argument("--format", choices=("csv", "json", "parquet"), required=True, help="of the files")
    parser.add_argument("-o", "--output", metavar="DIR", help="where to (default: RUN-export in the current folder)")
    add_store_option(parser)


def main(arguments: Namespace) -> int:
    """Bring the store up to date with the run, write it out, and print the files."""
    from clew.store import open_store

    workspace = workspace_of(arguments)
    store = open_store(workspace, arguments.store)
    from clew.store.export import export_run
    from clew.store.ingest import holds, sync

    try:
        run = find_run(workspace, arguments.name, purpose="is exported run by run")
    except UserError:
        # A run whose directory is gone can still be in the store.
        if not holds(store, arguments.name):
            raise
        name = arguments.name
    else:
        sync(store, workspace, [run])
        name = run.id
    folder = Path(arguments.output or f"{name}-export")
    for path in export_run(store, name, arguments.format, folder):
        print(path)
    return 0
