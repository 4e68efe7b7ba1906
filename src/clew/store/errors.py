"""What can be wrong with a store, in words that say what to do."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError

from clew.errors import ClewError, UserError
from clew.store.location import Location

REBUILD = "clew store rebuild makes it again from the runs; nothing is lost"
_DAMAGE = ("file is not a database", "malformed", "no such table", "no such column", "has no column")
_LOCKED = ("database is locked", "database table is locked")
_PG_LOCKED = "55P03"
_PG_TIMEOUT = "57014"
_PG_ENDING = "57P"  # operator intervention: it shuts down, has crashed, or is not up yet
_PG_WRITES = ("25006", "25001", "0A000")
_WRITES = ("not authorized", "prohibited", "readonly", "one statement at a time", "multiple commands")
_PG_UNDEFINED = ("42P01", "42703")


class StoreError(ClewError):
    """The store cannot be used as it is; runs are not touched by that."""


class StoreMissing(StoreError):
    """There is no store yet."""


class StoreDamaged(StoreError):
    """The store is there and cannot be read."""


class StoreLocked(StoreError):
    """Somebody else writes to the store."""


@contextmanager
def explained(location: Location) -> Iterator[None]:
    """Turn what a driver raises in the body into a :class:`StoreError`."""
    try:
        yield
    except DBAPIError as error:
        cause = error.orig or error
        # Not "from error": that would print statements with their values, and the URL's parts, with --debug.
        raise explain(cause, location) from None
    except sqlite3.Error as error:
        raise explain(error, location) from None


def explain(error: BaseException, location: Location) -> StoreError:
    """Return the error that people see for one of a driver."""
    text = first_line(error, location)
    where, code = location.shown, sqlstate(error)
    if code == _PG_LOCKED or any(word in text for word in _LOCKED):
        return StoreLocked("the store is locked: somebody else writes to it", where=where, hint="try again in a moment")
    if code in _PG_UNDEFINED or any(word in text for word in _DAMAGE):
        return StoreDamaged(f"the store is damaged: {text}", where=where, hint=REBUILD)
    if "unable to open database file" in text:
        return StoreMissing("the store cannot be opened", where=where, hint=REBUILD)
    if location.dialect == "postgresql" and (code is None or code.startswith(_PG_ENDING)):
        hint = "runs go on without it; clew store sync takes in what it has missed"
        return StoreError(f"the store does not answer: {text}", where=where, hint=hint)
    return StoreError(f"the store refuses: {text}", where=where)


def explain_query(error: BaseException, location: Location, seconds: float) -> ClewError:
    """Return the error that people see when their own query fails."""
    text, code = first_line(error, location), sqlstate(error)
    if text == "interrupted" or code == _PG_TIMEOUT:
        return UserError(f"the query took longer than {seconds:g} s", hint="--timeout SECONDS gives it more")
    if code in _PG_WRITES or any(word in text for word in _WRITES):
        return refusal()
    if location.dialect == "sqlite" and ("no such" in text or "syntax error" in text):
        return UserError(f"the query cannot be carried out: {text}", hint=_TABLES_HINT)
    if code is not None and code[:2] in ("42", "22", "21"):
        return UserError(f"the query cannot be carried out: {text}", hint=_TABLES_HINT)
    if isinstance(error, sqlite3.OperationalError | sqlite3.ProgrammingError | sqlite3.Warning):
        known = explain(error, location)
        return known if type(known) is not StoreError else UserError(f"the query cannot be carried out: {text}")
    return explain(error, location)


_TABLES_HINT = "clew store status lists the tables"


def refusal() -> UserError:
    """Return what is said to somebody who tries to write."""
    return UserError(
        "a query only reads: this statement was refused, and nothing was changed",
        hint="one select at a time; what the store holds comes from the runs",
    )


def first_line(error: BaseException, location: Location) -> str:
    """Return what a driver says, in one line and without the password."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return location.redact(lines[0] if lines else type(error).__name__)


def sqlstate(error: BaseException) -> str | None:
    """Return the five characters by which PostgreSQL names an error; None for what is not from a server."""
    code = getattr(error, "sqlstate", None)
    return code if isinstance(code, str) else None
