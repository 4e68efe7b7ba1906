"""Queries by people: they can read everything and change nothing, whatever they say.

SQLite: the file is opened for reading, and an authorizer lets nothing but reading through. PostgreSQL: a read-only
transaction, in which the statement is the body of a cursor, so that there can be only one and it can only be a query.
"""

from __future__ import annotations

import math
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from urllib.parse import quote

from sqlalchemy.exc import DBAPIError

from clew.errors import UserError
from clew.store.database import Store
from clew.store.errors import REBUILD, StoreMissing, explain_query, explained, refusal

TIMEOUT_SECONDS = 30.0
_FIRST_WORD = re.compile(r"(?:\s|\(|--[^\n]*(?:\n|\Z)|/\*.*?\*/)*(\w*)", re.S)
_READS = ("select", "with", "values")
_ALLOWED = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE)
_ALLOWED_PRAGMAS = ("table_info", "table_xinfo", "table_list", "index_list", "index_info")
_STEPS_BETWEEN_LOOKS = 10_000


@dataclass(frozen=True)
class Rows:
    """What a query gives, read while it is iterated."""

    columns: tuple[str, ...]
    rows: Iterator[tuple[Any, ...]]

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return (tuple(map(_same_everywhere, row)) for row in self.rows)


@contextmanager
def read(store: Store, query: str, *, timeout: float = TIMEOUT_SECONDS) -> Iterator[Rows]:
    """Carry out one query.

    Args:
        store: Where.
        query: SQL of the database that the store is in: one ``select``, ``with`` or ``values``.
        timeout: Seconds after which the query is broken off.

    Raises:
        UserError: If the query is wrong, would write, or takes too long.
        StoreError: If the store cannot be read.
    """
    found = _FIRST_WORD.match(query)
    word = found[1].lower() if found else ""
    if not word:
        raise UserError("the query is empty", hint="clew query 'select run, state from runs'")
    if word not in _READS:
        raise refusal()
    opened = _sqlite if store.location.dialect == "sqlite" else _postgresql
    try:
        with opened(store, query, timeout) as rows:
            yield rows
    except DBAPIError as error:
        raise explain_query(error.orig or error, store.location, timeout) from None
    except Exception as error:
        # psycopg is optional, so its errors are known by their module.
        if isinstance(error, sqlite3.Error | sqlite3.Warning) or type(error).__module__.startswith("psycopg"):
            raise explain_query(error, store.location, timeout) from None
        raise


@contextmanager
def _sqlite(store: Store, query: str, timeout: float) -> Iterator[Rows]:
    if not store.exists:
        raise StoreMissing("there is no store yet", where=store.location.shown, hint=REBUILD)
    uri = f"file:{quote(str(store.location.path))}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True, timeout=store.patience)) as connection:
        connection.execute("pragma query_only = on")
        connection.execute(
            "select count(*) from sqlite_master"
        ).fetchone()  # whatever is wrong with the file shows here
        connection.set_authorizer(_authorize)
        deadline = time.monotonic() + timeout
        connection.set_progress_handler(lambda: int(time.monotonic() > deadline), _STEPS_BETWEEN_LOOKS)
        cursor = connection.execute(query)
        yield Rows(tuple(item[0] for item in cursor.description), cursor)


def _authorize(action: int, first: str | None, *_: str | None) -> int:
    allowed = action in _ALLOWED or (action == sqlite3.SQLITE_PRAGMA and first in _ALLOWED_PRAGMAS)
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY


@contextmanager
def _postgresql(store: Store, query: str, timeout: float) -> Iterator[Rows]:
    with explained(store.location):
        plain = store.engine.connect()
    with plain:
        driver: Any = plain.connection.driver_connection
        driver.rollback()
        driver.read_only = True
        driver.execute(f"set local statement_timeout = {max(1, int(timeout * 1000))}")
        with driver.cursor(name="clew_query") as cursor:
            cursor.itersize = 2000
            cursor.execute(query)
            yield Rows(tuple(item.name for item in cursor.description), cursor)


def _same_everywhere(value: Any) -> Any:
    """PostgreSQL has exact numbers and truth values where SQLite has plain numbers."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, Decimal):
        return int(value) if value.is_finite() and value == value.to_integral_value() else float(value)
    return value


def spell(value: Any) -> Any:
    """Return a value as JSON has it."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, bytes | memoryview):
        return bytes(value).hex()
    return value if value is None or isinstance(value, str | int | float | list | dict) else str(value)
