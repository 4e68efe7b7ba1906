"""Training dynamics: how a sample's loss goes over several inspections of a run.

This is dataset cartography (Swayamdipta et al. 2020, arXiv:2009.10795) with the loss, a mean negative log-probability,
in the place of the paper's probability of the right label: a low mean is what they call high confidence, and the
variance of it their variability.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clew.errors import UserError, require
from clew.inspection.published import Inspection

if TYPE_CHECKING:
    from clew.inspection.samples import Floats, Ids

EASY, AMBIGUOUS, HARD = "easy", "ambiguous", "hard"
REGIONS = (EASY, AMBIGUOUS, HARD)


@dataclass(frozen=True)
class Dynamics:
    """The losses of samples over inspections, one entry for each sample that has a loss in at least two of them.

    Attributes:
        ids: [n] int64, rising.
        mean: [n] float64, of the sample's losses, in nats.
        variance: [n] float64, of them, over their number.
        count: [n] int64, how many there are.
        steps: Of the inspections.
    """

    ids: Ids
    mean: Floats
    variance: Floats
    count: Ids
    steps: Sequence[int]

    @property
    def regions(self) -> list[str]:
        """For each sample: ``ambiguous`` in the third of the highest variance; of the others ``easy`` with a mean up
        to their median, else ``hard``. Of equal variances the smaller number counts as the higher one.
        """
        order = np.lexsort((self.ids, -self.variance))
        rest = np.ones(len(order), dtype=bool)
        rest[order[: len(order) // 3]] = False
        middle = np.median(self.mean[rest])
        return [
            (EASY if mean <= middle else HARD) if steady else AMBIGUOUS
            for mean, steady in zip(self.mean.tolist(), rest.tolist(), strict=True)
        ]


def dynamics(found: Sequence[Inspection], run: str = "RUN") -> Dynamics:
    """Return the dynamics over inspections of one split (Welford's updates, 1962).

    Args:
        found: The inspections.
        run: Whose, for errors.

    Raises:
        UserError: If there are fewer than two, or no sample has a loss in two of them.
    """
    if len(found) < 2:
        raise UserError(
            f"a map needs two inspections of a split at different steps, and there {'is one' if found else 'are none'}",
            where=run,
            hint=f"clew inspect {run}{' --at STEP' if found else ''} makes one",
        )
    size = max(one.summary["samples"] for one in found)
    mean, scatter, count = np.zeros(size), np.zeros(size), np.zeros(size, dtype=np.int64)
    for one in found:
        loss = np.full(size, np.nan)
        values = one.numbers("loss")
        loss[: len(values)] = values
        known = np.isfinite(loss)
        count[known] += 1
        apart = loss[known] - mean[known]
        mean[known] += apart / count[known]
        scatter[known] += apart * (loss[known] - mean[known])
    ids = np.flatnonzero(count >= 2)
    if not len(ids):
        raise UserError("no sample has a loss in two of the inspections")
    return Dynamics(ids, mean[ids], scatter[ids] / count[ids], count[ids], [one.step for one in found])


def write_tables(folder: Path, found: Dynamics) -> list[Path]:
    """Write the map as ``map.parquet`` and ``map.csv``: id, mean_loss, variance, inspections, region.

    Args:
        folder: Where to.
        found: The dynamics.

    Returns:
        The files.
    """
    columns: dict[str, Any] = {
        "id": found.ids,
        "mean_loss": found.mean,
        "variance": found.variance,
        "inspections": found.count,
        "region": found.regions,
    }
    arrow, parquet = require("pyarrow", extra="data"), require("pyarrow.parquet", extra="data")
    files = [folder / "map.parquet", folder / "map.csv"]
    parquet.write_table(arrow.table(columns), files[0])
    with files[1].open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(columns)
        lists = (column if isinstance(column, list) else column.tolist() for column in columns.values())
        writer.writerows(zip(*lists, strict=True))
    return files
