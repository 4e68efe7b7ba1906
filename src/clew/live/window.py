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

    A tensor is copied on its device, which waits for nothing; all of them are fetched in one transfer.
    """

    def __init__(self) -> None:
        self._values: dict[str, list[Tensor | float]] = {}

    def add(self, metrics: Mapping[str, Any]) -> dict[str, Tensor | float]:
        """Keep a step's metrics, numbers or tensors of one element, and return them as they are kept."""
        values = {name: kept(value) for name, value in metrics.items()}
        for name, value in values.items():
            self._values.setdefault(name, []).append(value)
        return values

    def means(self) -> dict[str, float]:
        """Fetch the mean of each metric over the steps that had it; NaN where one of them is not finite."""
        return {name: _mean(values) for name, values in self._fetched().items()}

    def clear(self) -> None:
        """Begin anew."""
        self._values.clear()

    def state(self) -> dict[str, list[float]]:
        """Return what :meth:`load` takes."""
        return self._fetched()

    def load(self, state: Mapping[str, list[float]]) -> None:
        """Go on from a state."""
        self._values = {name: list(values) for name, values in state.items()}

    def _fetched(self) -> dict[str, list[float]]:
        """Bring all values here, and keep them so."""
        waiting = [value for values in self._values.values() for value in values if isinstance(value, Tensor)]
        if waiting:
            numbers = iter(_fetch(waiting))
            for values in self._values.values():
                values[:] = [next(numbers) if isinstance(value, Tensor) else value for value in values]
        return {name: [float(value) for value in values] for name, values in self._values.items()}


def _fetch(tensors: list[Tensor]) -> list[float]:
    """One transfer for each device, which is one."""
    device = tensors[0].device
    stacked = torch.stack([tensor.reshape(()).to(device, torch.float64) for tensor in tensors])
    numbers: list[float] = stacked.tolist()
    return numbers


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values) if all(map(math.isfinite, values)) else math.nan
