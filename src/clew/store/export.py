"""A run as files, one for each table that holds something of it."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import BigInteger, Connection, Double, Table, func, select

from clew.errors import UserError, require
from clew.runs.journal import spell_non_finite
from clew.store.database import Store
from clew.store.tables import CONTENT, NESTED, runs

_BATCH = 5000

Batches = Iterable[Sequence[Sequence[Any]]]
Writer = Callable[[Path, Table, Batches], None]


def export_run(store: Store, run: str, form: str, folder: Path) -> list[Path]:
    """Write what the store holds of a run.

    Args:
        store: Where it is.
        run: The run's id.
        form: ``csv``, ``json`` or ``parquet``.
        folder: Where to; made if need be. Files of an earlier export are replaced, each as a whole.

    Returns:
        The files, in the order of the tables.

    Raises:
        MissingLibrary: For Parquet without the extra ``data``.
        UserError: If the folder cannot be written, or the store does not have the run.
    """
    if form == "parquet":
        require("pyarrow", extra="data")
    with store.reading() as connection:
        if connection.execute(select(func.count()).where(runs.c.run == run)).scalar_one() == 0:
            raise UserError(f"the store has no run {run!r}", where=store.location.shown, hint="clew store sync")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            written = [_table(connection, table, run, form, folder) for table in CONTENT]
        except OSError as error:
            raise UserError(f"cannot write there: {error.strerror}", where=str(folder)) from error
    return [path for path in written if path is not None]


def _table(connection: Connection, table: Table, run: str, form: str, folder: Path) -> Path | None:
    """Write one file under a hidden name and rename it; an empty table has none."""
    path = folder / f"{table.name}.{form}"
    count = connection.execute(select(func.count()).select_from(table).where(table.c.run == run)).scalar_one()
    if count == 0:
        path.unlink(missing_ok=True)
        return None
    staging = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        WRITERS[form](staging, table, _batches(connection, table, run))
        staging.replace(path)
    finally:
        staging.unlink(missing_ok=True)
    return path


def _batches(connection: Connection, table: Table, run: str) -> Iterator[Sequence[Sequence[Any]]]:
    query = select(table).where(table.c.run == run).order_by(*table.columns)
    with connection.execution_options(yield_per=_BATCH).execute(query) as found:
        for batch in found.partitions():
            yield [tuple(row) for row in batch]


def _write_csv(path: Path, table: Table, batches: Batches) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(table.columns.keys())
        for batch in batches:
            writer.writerows(batch)


def _write_json(path: Path, table: Table, batches: Batches) -> None:
    """A list of objects, a line each; columns that hold JSON become what they say."""
    names = table.columns.keys()
    separator = "[\n"
    with path.open("w", encoding="utf-8") as stream:
        for batch in batches:
            for row in batch:
                values = {name: _nested(name, value) for name, value in zip(names, row, strict=True)}
                stream.write(separator + json.dumps(spell_non_finite(values), ensure_ascii=False, allow_nan=False))
                separator = ",\n"
        stream.write("\n]\n")


def _nested(name: str, value: Any) -> Any:
    return json.loads(value) if name in NESTED and value is not None else value


def _write_parquet(path: Path, table: Table, batches: Batches) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    kinds = [(column.name, _arrow(pa, column.type)) for column in table.columns]
    schema = pa.schema(kinds)
    with parquet.ParquetWriter(path, schema) as writer:
        for batch in batches:
            columns = [
                pa.array(values, type=kind) for values, (_, kind) in zip(zip(*batch, strict=True), kinds, strict=True)
            ]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))


def _arrow(pa: Any, kind: Any) -> Any:
    if isinstance(kind, BigInteger):
        return pa.int64()
    return pa.float64() if isinstance(kind, Double) else pa.string()


WRITERS: dict[str, Writer] = {"csv": _write_csv, "json": _write_json, "parquet": _write_parquet}
