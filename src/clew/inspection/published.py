"""Inspections that a run has made, read back."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clew.errors import UserError, require
from clew.inspection.parts import PART_ROWS, batches, columns_of, numbers, part_path
from clew.runs.files import path_inside, read_json

if TYPE_CHECKING:
    from clew.inspection.samples import Floats, Ids

FOLDER = "artifacts/inspections"
_NAME = re.compile(r"step-(\d+)-(\w[\w-]*)")
_CSV = ("id", "loss", "margin", "length", "cluster", "x", "y", "fields", "text")


@dataclass(frozen=True)
class Row:
    """A sample as an inspection saw it; what it does not have is None, or empty."""

    id: int
    loss: float | None
    margin: float | None
    length: int
    text: str
    fields: Mapping[str, Any]
    tokens: Sequence[str] = ()
    token_losses: Sequence[float] = ()


@dataclass(frozen=True)
class Inspection:
    """A finished inspection.

    Attributes:
        path: Its folder.
        step: The finished steps of the weights.
        split: Whose samples.
    """

    path: Path
    step: int
    split: str

    @property
    def summary(self) -> dict[str, Any]:
        """The figures of the whole."""
        found: dict[str, Any] = read_json(self.path / "summary.json")
        return found

    def numbers(self, column: str) -> Floats:
        """Return ``loss``, ``margin`` or ``length`` of all samples, as [n] float64; NaN where there is none."""
        return numbers(self.path, column)

    def points(self) -> tuple[Floats, Floats, Ids]:
        """Return x, y [n] float64 (NaN where a sample has no place) and cluster [n] int64 (0 for none)."""
        parquet = require("pyarrow.parquet", extra="data")
        found = parquet.read_table(self.path / "points.parquet", columns=["x", "y", "cluster"])
        x, y, cluster = (column.to_numpy() for column in found.columns)
        return x.astype(np.float64), y.astype(np.float64), np.nan_to_num(cluster, nan=0).astype(np.int64)

    def rows(self, ids: Ids) -> list[Row]:
        """Return some samples, in this order; only the parts that hold them are read.

        Args:
            ids: Sample numbers [n].

        Raises:
            UserError: If there is no such sample.
        """
        size = self.summary["samples"]
        if beyond := [number for number in ids.tolist() if not 0 <= number < size]:
            raise UserError(f"there is no sample {beyond[0]}; this inspection has {size}, from 0", where=self.path.name)
        found: dict[int, Row] = {}
        for part in np.unique(ids // PART_ROWS).tolist():
            found |= self._rows_of(part, set(ids[ids // PART_ROWS == part].tolist()))
        return [found[number] for number in ids.tolist()]

    def _rows_of(self, part: int, wanted: set[int]) -> dict[int, Row]:
        parquet = require("pyarrow.parquet", extra="data")
        names = [name for name in columns_of(self.path) if name != "embedding"]
        found: dict[int, Row] = {}
        with parquet.ParquetFile(part_path(self.path, part)) as file:
            for batch in file.iter_batches(512, columns=names, use_threads=False):
                places = [place for place, number in enumerate(batch.column(0).to_pylist()) if number in wanted]
                for row in batch.take(require("pyarrow", extra="data").array(places, "int64")).to_pylist():
                    found[row["id"]] = Row(**{**row, "fields": json.loads(row["fields"] or "{}")})
        return found

    def write_csv(self, path: Path) -> None:
        """Write all samples as CSV, without tokens and embeddings; a reader sees the whole file or none.

        Args:
            path: Where to.
        """
        staging = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with staging.open("w", encoding="utf-8", newline="") as stream:
                writer = csv.writer(stream, lineterminator="\n")
                writer.writerow(_CSV)
                writer.writerows(self._csv_rows())
            staging.replace(path)
        finally:
            staging.unlink(missing_ok=True)

    def _csv_rows(self) -> Iterator[list[Any]]:
        x, y, cluster = self.points()
        names = [name for name in _CSV if name not in ("cluster", "x", "y")]
        for batch in batches(self.path, names):
            columns = dict(zip(batch.schema.names, (column.to_pylist() for column in batch.columns), strict=True))
            rows = slice(columns["id"][0], columns["id"][-1] + 1)
            columns |= {"x": _known(x[rows]), "y": _known(y[rows]), "cluster": [one or None for one in cluster[rows]]}
            yield from (list(row) for row in zip(*(columns[name] for name in _CSV), strict=True))


def _known(values: Floats) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in values]


def folder_of(run: Path, step: int, split: str) -> Path:
    """Return where the inspection of some weights is, or would be.

    Args:
        run: The run's directory.
        step: The finished steps of the weights.
        split: Whose samples.

    Raises:
        UserError: If the split leads elsewhere.
    """
    return path_inside(run / FOLDER, f"step-{step:08}-{split}")


def inspections(run: Path, split: str | None = None) -> list[Inspection]:
    """Return the finished inspections of a run, the oldest weights first.

    Args:
        run: The run's directory.
        split: Only of this split; None is all of them.
    """
    found = [Inspection(path, *named) for path in (run / FOLDER).glob("step-*") if (named := _named(path))]
    return sorted(
        (one for one in found if split in (None, one.split) and (one.path / "summary.json").is_file()),
        key=lambda one: (one.step, one.split),
    )


def inspection(run: Path, split: str, step: int | None = None) -> Inspection:
    """Return an inspection of a run.

    Args:
        run: The run's directory.
        split: Whose samples.
        step: The finished steps of the weights; None takes the newest.

    Raises:
        UserError: If there is none; with those that there are.
    """
    found = [one for one in inspections(run, split) if step in (None, one.step)]
    if found:
        return found[-1]
    of = f"{split} at step {step}" if step is not None else split
    raise UserError(f"there is no inspection of {of}", where=run.name, hint=_there_is(inspections(run), run.name))


def _there_is(found: Iterable[Inspection], run: str) -> str:
    steps: dict[str, list[str]] = {}
    for one in found:
        steps.setdefault(one.split, []).append(str(one.step))
    known = "; ".join(f"{split} at step {', '.join(some)}" for split, some in steps.items())
    return f"there is {known}" if known else f"clew inspect {run} makes one"


def _named(path: Path) -> tuple[int, str] | None:
    match = _NAME.fullmatch(path.name)
    return (int(match[1]), match[2]) if match else None
