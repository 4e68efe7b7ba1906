"""What is known of each sample, as Parquet files of a fixed number of rows, each whole or absent, read in pieces."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clew.errors import require
from clew.inspection.samples import Scores
from clew.inspection.walking import CHUNK, Chunks, Points
from clew.runs.files import sync_directory, sync_file
from clew.runs.journal import spell_non_finite

if TYPE_CHECKING:
    from clew.inspection.samples import Floats, Ids

PART_ROWS = 4096
TEXT_CHARS = 4000
"""Of a text so much is kept."""
FOLDER = "parts"


def part_path(folder: Path, number: int) -> Path:
    """Return the file of the samples from ``number * PART_ROWS`` on."""
    return folder / FOLDER / f"part-{number:05}.parquet"


def is_whole(path: Path, rows: int) -> bool:
    """Say whether a part is there with so many rows."""
    parquet, arrow = require("pyarrow.parquet", extra="data"), require("pyarrow", extra="data")
    try:
        return bool(parquet.read_metadata(path).num_rows == rows)
    except (OSError, arrow.ArrowInvalid):
        return False


def write_part(path: Path, tables: Iterable[Any]) -> None:
    """Write a part, a row group for each table; the file is there when all of them have been written.

    Args:
        path: Where to; its folder exists.
        tables: At least one, what :func:`table` gives.
    """
    parquet = require("pyarrow.parquet", extra="data")
    staging = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        rest = iter(tables)
        first = next(rest)
        # Words are few and repeat; numbers are many and don't.
        options = {"compression": "zstd", "use_dictionary": ["tokens.list.element"]}
        with parquet.ParquetWriter(staging, first.schema, **options) as writer:
            writer.write_table(first)
            for more in rest:
                writer.write_table(more)
        sync_file(staging)
        staging.replace(path)
        sync_directory(path.parent)
    finally:
        staging.unlink(missing_ok=True)


def table(ids: Ids, scores: Scores, fields: Sequence[Mapping[str, Any]]) -> Any:
    """Return an Arrow table of some samples [B].

    ``id`` int64; ``loss`` and ``margin`` double, null where there is none; ``length`` int64; ``text``, cut; ``fields``,
    what the data has besides, as JSON, or null; ``tokens`` and ``token_losses`` (float), lists, and ``embedding``, a
    list of float of one width, where the trainer gives them.
    """
    arrow = require("pyarrow", extra="data")
    columns = {
        "id": arrow.array(ids),
        "loss": _scores(arrow, scores.loss, len(ids)),
        "margin": _scores(arrow, scores.margin, len(ids)),
        "length": arrow.array([int(row["length"]) for row in fields], arrow.int64()),
        "text": arrow.array([str(row["text"])[:TEXT_CHARS] for row in fields], arrow.string()),
        "fields": arrow.array([_besides(row) for row in fields], arrow.string()),
    }
    if len(scores.tokens):
        columns["tokens"] = arrow.array([list(one) for one in scores.tokens], arrow.list_(arrow.string()))
        columns["token_losses"] = arrow.array(list(scores.token_losses), arrow.list_(arrow.float32()))
    if scores.embedding is not None:
        flat = arrow.array(np.ascontiguousarray(scores.embedding, dtype=np.float32).reshape(-1))
        columns["embedding"] = arrow.FixedSizeListArray.from_arrays(flat, scores.embedding.shape[1])
    return arrow.table(columns)


def _scores(arrow: Any, values: Floats | None, size: int) -> Any:
    if values is None:
        return arrow.nulls(size, arrow.float64())
    return arrow.array(values, arrow.float64(), from_pandas=True)  # NaN becomes null


def _besides(row: Mapping[str, Any]) -> str | None:
    """The other fields as JSON; what JSON does not know, as a text."""
    rest = {name: value for name, value in row.items() if name not in ("text", "length")}
    if not rest:
        return None
    try:
        return json.dumps(rest, ensure_ascii=False, allow_nan=False, default=str)
    except ValueError:
        return json.dumps(spell_non_finite(rest), ensure_ascii=False, default=str)


def paths(folder: Path) -> list[Path]:
    """Return the parts of an inspection in their order."""
    return sorted((folder / FOLDER).glob("part-*.parquet"))


def columns_of(folder: Path) -> list[str]:
    """Return the names of the columns."""
    names: list[str] = require("pyarrow.parquet", extra="data").read_schema(paths(folder)[0]).names
    return names


def batches(folder: Path, columns: Sequence[str]) -> Iterator[Any]:
    """Yield Arrow record batches of some columns, in the order of the samples, :data:`CHUNK` rows at the most."""
    parquet = require("pyarrow.parquet", extra="data")
    for path in paths(folder):
        with parquet.ParquetFile(path) as file:
            yield from file.iter_batches(CHUNK, columns=list(columns), use_threads=False)


def numbers(folder: Path, column: str) -> Floats:
    """Return a column of numbers as [n] float64, NaN where there is none."""
    found = [batch.column(0).to_numpy(zero_copy_only=False) for batch in batches(folder, [column])]
    return np.concatenate(found).astype(np.float64) if found else np.zeros(0)


def embeddings(folder: Path) -> Chunks:
    """Return what gives the embeddings' rows [n, D] float32, some at a time."""

    def read() -> Iterator[Points]:
        for batch in batches(folder, ["embedding"]):
            column = batch.column(0)
            yield column.flatten().to_numpy().reshape(len(column), -1)

    return read


def num_parts(samples: int) -> int:
    """Return how many parts so many samples have."""
    return math.ceil(samples / PART_ROWS)
