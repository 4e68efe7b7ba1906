"""``clew query``: ask the store in SQL."""

from __future__ import annotations

import csv
import json
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any

from clew.cli.finding import workspace_of
from clew.cli.store import add_store_option
from clew.cli.text import one_line, print_table
from clew.errors import UserError
from clew.logs.logger import Logger

if TYPE_CHECKING:
    from clew.cli.parser import Parser
    from clew.store.query import Rows

_TABLE_ROWS = 1000
_CELL = 80


def configure(parser: Parser, verb: str) -> None:
    """Add the arguments."""
    parser.add_argument("query", metavar="SQL", help="one select; it can only read")
    parser.add_argument("--format", choices=tuple(_WRITERS), default="table", help="how it is written (default: table)")
    parser.add_argument("--sync", action="store_true", help="take in what is new in the runs first")
    parser.add_argument("--timeout", type=float, default=30.0, metavar="SECONDS", help="break off after (default: 30)")
    add_store_option(parser)


def main(arguments: Namespace) -> int:
    """Print what a query gives."""
    from clew.store import open_store

    if not 0 < arguments.timeout < 1e6:
        raise UserError("--timeout takes a number of seconds above 0", where="query")
    workspace = workspace_of(arguments)
    store = open_store(workspace, arguments.store)
    if arguments.sync:
        from clew.store.ingest import sync

        sync(store, workspace)
    from clew.store.query import read

    with read(store, arguments.query, timeout=arguments.timeout) as rows:
        _WRITERS[arguments.format](rows)
    return 0


def _write_table(rows: Rows) -> None:
    """Show what a person can read: each value in a line, and no more rows than fit into memory."""
    found = iter(rows)
    shown = [[_cell(value) for value in row] for row in islice(found, _TABLE_ROWS)]
    print_table(rows.columns, shown)
    if next(found, None) is not None:
        Logger("clew.cli").warning(f"only the first {_TABLE_ROWS} rows are shown; --format csv gives all")


def _cell(value: Any) -> str:
    return "" if value is None else one_line(str(value), _CELL)


def _write_csv(rows: Rows) -> None:
    from clew.store.query import spell

    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(rows.columns)
    writer.writerows([spell(value) for value in row] for row in rows)


def _write_json(rows: Rows) -> None:
    """Write a list of objects, a line each, as they come."""
    from clew.store.query import spell

    names = _distinct(rows.columns)
    separator = "["
    for row in rows:
        values = dict(zip(names, map(spell, row), strict=True))
        sys.stdout.write(f"{separator}\n{json.dumps(values, ensure_ascii=False)}")
        separator = ","
    sys.stdout.write("[]\n" if separator == "[" else "\n]\n")


def _distinct(columns: Iterable[str]) -> list[str]:
    """Number columns of the same name, for an object holds each name once."""
    names: list[str] = []
    for column in columns:
        name, number = column, 2
        while name in names:
            name, number = f"{column}_{number}", number + 1
        names.append(name)
    return names


_WRITERS: dict[str, Callable[[Rows], None]] = {"table": _write_table, "csv": _write_csv, "json": _write_json}
