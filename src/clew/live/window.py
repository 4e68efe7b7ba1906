"""Metrics between two logs: kept where they are, fetched together, and never one by one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from clew.health.probe import kept


class Window:
    """The values of each metric since the last log, in the order of the steps.

    A tensor on a device is copied there, which waits for nothing; all of them are fetched in one transfer.
    """

    def __init__(self) -> None:
        self._columns: dict[str, list[float]] = {}
        self._rows: list[dict[str, Tensor | float]] = []  # sorted into the columns when somebody asks

    def add(self, metrics: Mapping[str, Any]) -> dict[str, Tensor | float]:
        """Keep a step's metrics, numbers or tensors of one element, and return them as they are kept."""
        values: dict[str, Tensor | float] = {}
        for name, value in metrics.items():  # no comprehension, which is one more call that each step waits for
            values[name] = value if type(value) is float else noted(value)
        self._rows.append(values)
        return values

    def means(self) -> dict[str, float]:
        """Fetch the mean of each metric over the steps that had it; NaN where one of them is not finite."""
        return {name: _mean(values) for name, values in self._fetched().items()}

    def clear(self) -> None:
        """Begin anew."""
        self._columns.clear()
        self._rows.clear()

    def state(self) -> dict[str, list[float]]:
        """Return what :meth:`load` takes."""
        return {name: list(values) for name, values in self._fetched().items()}

    def load(self, state: Mapping[str, list[float]]) -> None:
        """Go on from a state."""
        self._columns = {name: list(values) for name, values in state.items()}
        self._rows.clear()

    def _fetched(self) -> dict[str, list[float]]:
        """Bring all values here, and keep them so."""
        waiting: list[tuple[list[float], int, Tensor]] = []
        for row in self._rows:
            for name, value in row.items():
                column = self._columns.setdefault(name, [])
                if isinstance(value, Tensor):
                    waiting.append((column, len(column), value))
                    column.append(math.nan)
                else:
                    column.append(value)
        self._rows.clear()
        if waiting:
            for (column, place, _), number in zip(waiting, _fetch([tensor for *_, tensor in waiting]), strict=True):
                column[place] = number
        return self._columns


def noted(value: Any) -> Tensor | float:
    """Return a metric as it is kept: what lies on the CPU is a number already, which costs a tenth of a copy.

    Args:
        value: A number, or a tensor of one element.
    """
    return float(value.item()) if isinstance(value, Tensor) and value.is_cpu else kept(value)


def _fetch(tensors: list[Tensor]) -> list[float]:
    """One transfer for each device, which is one."""
    device = tensors[0].device
    stacked = torch.stack([tensor.reshape(()).to(device, torch.float64) for tensor in tensors])
    numbers: list[float] = stacked.tolist()
    return numbers


def _mean(values: list[float]) -> float:
    try:
        mean = math.fsum(values) / len(values)
    except (OverflowError, ValueError):  # infinities of both signs, for instance
        return math.nan
    return mean if math.isfinite(mean) else math.nan
