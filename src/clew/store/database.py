"""The connection to a store: one writer at a time, everything that belongs together in one transaction."""

from __future__ import annotations

import fcntl
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from sqlalchemy import Connection, Engine, NullPool, Table, create_engine, event, text

from clew.store import schema
from clew.store.errors import REBUILD, StoreError, StoreLocked, StoreMissing, explained
from clew.store.location import Location

PATIENCE_SECONDS = 10.0
_ADVISORY_LOCK = 0x636C6577  # "clew" in ASCII: one writer in a PostgreSQL database
_READING = "clew_reading"


class Store:
    """A database that holds the index of a workspace.

    Args:
        location: Where it is.
        patience: Seconds to wait for somebody else who writes.
    """

    def __init__(self, location: Location, *, patience: float = PATIENCE_SECONDS) -> None:
        self.location = location
        self.patience = patience

    @property
    def exists(self) -> bool:
        """Say whether there is something to read; of a server, only asking can tell."""
        return self.location.dialect != "sqlite" or self.location.path.is_file()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Give a connection to a store that is there and current.

        Raises:
            StoreError: If it is not.
        """
        if not self.exists:
            raise StoreMissing("there is no store yet", where=self.location.shown, hint=REBUILD)
        with explained(self.location), self.engine.connect() as plain:
            connection = plain.execution_options(**{_READING: True})
            schema.check(connection, self.location)
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Give a connection in a transaction that is committed when the body succeeds, and undone when it does not."""
        with explained(self.location), self.engine.begin() as connection:
            if self.location.dialect == "postgresql":
                # The index can always be made again, so a commit need not wait for the server's disk.
                connection.execute(text("set local synchronous_commit = off"))
                connection.execute(text(f"set local lock_timeout = {int(self.patience * 1000)}"))
                connection.execute(text(f"select pg_advisory_xact_lock({_ADVISORY_LOCK})"))
            yield connection

    def prepare(self) -> None:
        """Make the store, or bring its tables up to date."""
        self.make_folder()
        with self.writing() as connection:
            schema.upgrade(connection, self.location)

    def make_folder(self) -> None:
        """Make the folder of a SQLite store."""
        if self.location.dialect != "sqlite":
            return
        folder = self.location.path.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"the store cannot be made: {error.strerror}", where=str(folder)) from error

    @contextmanager
    def guarded(self, *, replacing: bool = False) -> Iterator[None]:
        """Keep a SQLite file in its place while the body writes to it, or keep all writers away while it is replaced.

        Renaming a database that somebody has open damages it. A server needs none of this.
        """
        if self.location.dialect != "sqlite":
            yield
            return
        self.make_folder()
        lock = self.location.path.with_name(f"{self.location.path.name}.lock")
        try:
            stream = lock.open("a")
        except OSError as error:
            raise StoreError(f"the store cannot be written: {error.strerror}", where=str(lock.parent)) from error
        with stream:
            self._wait_for(stream, fcntl.LOCK_EX if replacing else fcntl.LOCK_SH)
            yield

    def move_aside(self) -> Path:
        """Rename a SQLite file that cannot be read, and return its new name."""
        path = self.location.path
        self.engine.dispose()
        aside = path.with_name(f"{path.name}.damaged")
        path.replace(aside)
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        return aside

    @cached_property
    def engine(self) -> Engine:
        """The source of connections; each is closed after its use, so that no process holds one."""
        if self.location.dialect == "sqlite":
            engine = create_engine(self.location.url, poolclass=NullPool, connect_args={"timeout": self.patience})
            event.listen(engine, "connect", _prepare_sqlite)
            event.listen(engine, "begin", _begin_sqlite)
            return engine
        arguments = {"connect_timeout": max(2, round(self.patience)), "application_name": "clew"}
        return create_engine(self.location.url, poolclass=NullPool, connect_args=arguments)

    def _wait_for(self, stream: IO[str], kind: int) -> None:
        deadline = time.monotonic() + self.patience
        while True:
            try:
                return fcntl.flock(stream, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise StoreLocked(
                        "the store is locked: somebody else writes to it",
                        where=self.location.shown,
                        hint="try again in a moment",
                    ) from None
                time.sleep(0.02)


def _prepare_sqlite(connection: sqlite3.Connection, _: object) -> None:
    """WAL lets readers read while one writes; its files need no sync at each commit to stay whole."""
    connection.isolation_level = None  # transactions begin where we say so
    connection.execute("pragma journal_mode = wal")
    connection.execute("pragma synchronous = normal")


def _begin_sqlite(connection: Connection) -> None:
    """A writer takes the lock at once, for a reader that becomes a writer later can only fail."""
    reading = connection.get_execution_options().get(_READING, False)
    connection.exec_driver_sql("begin" if reading else "begin immediate")


def insert(connection: Connection, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert rows, each with a value for every column, the fast way of the database."""
    if not rows:
        return
    columns = ", ".join(f'"{column.name}"' for column in table.columns)
    if connection.dialect.name == "sqlite":
        marks = ", ".join("?" * len(table.columns))
        connection.exec_driver_sql(f'insert into "{table.name}" ({columns}) values ({marks})', list(rows))  # noqa: S608
        return
    driver: Any = connection.connection.driver_connection
    with driver.cursor() as cursor, cursor.copy(f'copy "{table.name}" ({columns}) from stdin') as copy:
        for row in rows:
            copy.write_row(row)
