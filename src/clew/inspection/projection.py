"""Principal components of a matrix that does not fit into memory: its rows come by, some at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from clew.errors import require
from clew.inspection.walking import Points

if TYPE_CHECKING:
    from clew.inspection.samples import Floats

Plane = npt.NDArray[np.float32]


class Principal:
    """Mean and covariance of rows, updated by blocks (Chan, Golub & LeVeque 1979), in the memory of a [D, D] matrix."""

    def __init__(self) -> None:
        self.count = 0
        self._mean: npt.NDArray[np.float64] = np.zeros(0)
        self._scatter: npt.NDArray[np.float64] = np.zeros((0, 0))

    def add(self, rows: Points) -> None:
        """Take in rows [n, D] of finite numbers."""
        if not len(rows):
            return
        block = rows.astype(np.float64)
        mean = block.mean(axis=0)
        block -= mean
        if not self.count:
            self._mean, self._scatter = np.zeros_like(mean), np.zeros((len(mean), len(mean)))
        total = self.count + len(rows)
        apart = mean - self._mean
        self._scatter += block.T @ block
        self._scatter += np.outer(apart, apart) * (self.count * len(rows) / total)
        self._mean = self._mean + apart * (len(rows) / total)
        self.count = total

    def fit(self, count: int = 2) -> Projection:
        """Return the directions in which the rows vary most (Pearson 1901).

        Args:
            count: How many; where the rows have fewer dimensions, the others are zero.

        Raises:
            ValueError: If there were no rows.
        """
        width = len(self._mean)
        if not width:
            raise ValueError("no rows were added")
        found = min(count, width)
        solver = require("scipy.linalg", extra="live")
        values, vectors = solver.eigh(self._scatter, subset_by_index=[width - found, width - 1])
        axes = np.zeros((count, width))
        axes[:found] = vectors.T[::-1]
        # A direction and its opposite are equally good: the one whose largest part is positive is taken.
        largest = np.abs(axes).argmax(axis=1)
        axes *= np.where(axes[np.arange(count), largest] < 0, -1, 1)[:, None]
        whole = float(np.trace(self._scatter))
        shares = np.zeros(count)
        shares[:found] = np.maximum(values[::-1], 0) / whole if whole > 0 else 0
        return Projection(self._mean, axes, shares)


class Projection:
    """Principal directions.

    Attributes:
        mean: [D] float64, what is the origin.
        axes: [count, D] float64, of length 1, or zero.
        explained: [count] float64, each one's share of the whole variance.
    """

    def __init__(self, mean: Floats, axes: npt.NDArray[np.float64], explained: Floats) -> None:
        self.mean = mean
        self.axes = axes
        self.explained = explained

    def of(self, rows: Points) -> Plane:
        """Return the coordinates [n, count] float32 of rows [n, D]; NaN for rows that are not finite."""
        with np.errstate(invalid="ignore"):
            found: npt.NDArray[Any] = (rows.astype(np.float64) - self.mean) @ self.axes.T
        found[~np.isfinite(rows).all(axis=1)] = np.nan
        return found.astype(np.float32)
