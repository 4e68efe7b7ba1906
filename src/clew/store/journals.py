"""From the journals of one run to rows, a bounded piece at a time.

Whatever the order in which the files of a journal are read, and wherever a piece ends, the rows come out as
:func:`clew.runs.journal.read_events` yields events: an attempt that restored step *k* takes away the later steps of
earlier attempts that are in the store, and those that come afterwards are not let in. So does one that went back on
purpose, with the later commands as well.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Table, delete, select

from clew.runs import Event
from clew.runs.journal import Beginning, beginnings, decode, journal_files
from clew.store.database import insert
from clew.store.events import Row, rows_of
from clew.store.tables import EVENT_TABLES, attempts, commands
from clew.store.values import as_json, real, whole


@dataclass
class Attempt:
    """The row of an attempt, in the order of its columns after the key."""

    started: float | None = None
    ended: float | None = None
    restored: int | None = None
    environment: str | None = None

    def see(self, event: Event) -> None:
        """Take over the time of an event and, from the first one, the environment."""
        time = real(event.get("t"))
        if time is not None:
            self.started = time if self.started is None or time < self.started else self.started
            self.ended = time if self.ended is None or time > self.ended else self.ended
        if event.get("kind") == "attempt":
            self.environment = as_json(event.get("environment"))


class JournalReader:
    """Takes the new lines of a run's journal into the store.

    Args:
        connection: In the transaction that will also hold the new positions.
        run: The run's id.
        positions: Bytes of each file that have been taken in; changed in place.
    """

    def __init__(self, connection: Connection, run: str, positions: dict[str, int]) -> None:
        self._connection = connection
        self._run = run
        self._positions = positions
        self._rows: dict[Table, list[Row]] = defaultdict(list)
        query = select(attempts).where(attempts.c.run == run)
        self._attempts = {row.attempt: Attempt(*row[2:]) for row in connection.execute(query)}
        self._touched: set[int] = set()
        self._begun: dict[int, Beginning] = {}

    def read(self, folder: Path, budget: int) -> tuple[int, bool]:
        """Take in whole new lines until there are no more, or about ``budget`` bytes have been read.

        Returns:
            The bytes that were read, and whether there may be more.
        """
        read = 0
        files = journal_files(folder)
        new = any(path.stat().st_size > self._positions.get(path.name, 0) for path, *_ in files)
        self._begun = beginnings(files) if new else {}
        for path, attempt, rank in files:
            if path.stat().st_size <= self._positions.get(path.name, 0):
                continue
            read += self._file(path, attempt, rank, budget - read)
            if read >= budget:
                # There may be no more; asking once too often costs less than knowing.
                self._finish()
                return read, True
        self._finish()
        return read, False

    def _file(self, path: Path, attempt: int, rank: int, budget: int) -> int:
        """Take in one file's lines; the part of a last line that is being written waits."""
        self._touched.add(attempt)
        row = self._attempts.setdefault(attempt, Attempt())
        backs = [one for number, one in self._begun.items() if number > attempt and one.back is not None]
        limit = min([math.inf, *(_restored(item) for number, item in self._attempts.items() if number > attempt)])
        limit = min([limit, *(one.back for one in backs if one.back is not None)])
        start = self._positions.get(path.name, 0)
        end = start
        for line in _whole_lines(path, start, budget):
            end += len(line)
            if (event := decode(line)) is None:
                continue
            row.see(event)
            step = event.get("step")
            if event.get("kind") == "restore" and rank == 0 and row.restored is None:
                self._restore(attempt, row, step)
            elif event.get("kind") == "went_back" and rank == 0:
                self._go_back(attempt, self._begun.get(attempt, Beginning()))
            elif any(one.undoes(event) for one in backs):
                continue
            elif not isinstance(step, int) or (step <= limit and whole(step) is not None):
                for table, values in rows_of(self._run, attempt, rank, event):
                    self._rows[table].append(values)
        self._positions[path.name] = end
        return end - start

    def _restore(self, attempt: int, row: Attempt, step: Any) -> None:
        """An attempt goes on from a step: what earlier ones said of later steps no longer counts."""
        row.restored = whole(step)
        if row.restored is not None:
            self._forget(attempt, row.restored)

    def _go_back(self, attempt: int, begun: Beginning) -> None:
        """An attempt has left what earlier ones did after a step, and what they were told then."""
        back = whole(begun.back)
        if back is None:
            return
        self._forget(attempt, back)
        at, earlier = commands.c.at, (commands.c.run == self._run) & (commands.c.attempt < attempt)
        after = (at == back) & commands.c.id.not_in(begun.contained)
        self._connection.execute(delete(commands).where(earlier & ((at > back) | after)))

    def _forget(self, attempt: int, step: int) -> None:
        """Take away what attempts before this one said of later steps."""
        self._flush()
        for table in EVENT_TABLES:
            old = (table.c.run == self._run) & (table.c.attempt < attempt) & (table.c.step > step)
            self._connection.execute(delete(table).where(old))

    def _flush(self) -> None:
        for table, rows in self._rows.items():
            insert(self._connection, table, rows)
        self._rows.clear()

    def _finish(self) -> None:
        self._flush()
        if not self._touched:
            return
        rows = [self._attempts[number] for number in sorted(self._touched)]
        mine = (attempts.c.run == self._run) & attempts.c.attempt.in_(self._touched)
        self._connection.execute(delete(attempts).where(mine))
        values = [(item.started, item.ended, item.restored, item.environment) for item in rows]
        insert(
            self._connection,
            attempts,
            [(self._run, number, *item) for number, item in zip(sorted(self._touched), values, strict=True)],
        )


def _restored(attempt: Attempt) -> float:
    return math.inf if attempt.restored is None else attempt.restored


def _whole_lines(path: Path, start: int, budget: int) -> Iterator[bytes]:
    with path.open("rb") as stream:
        stream.seek(start)
        for line in stream:
            if not line.endswith(b"\n"):
                return
            yield line
            budget -= len(line)
            if budget <= 0:
                return
