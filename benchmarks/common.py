"""What the benchmarks share: alternating rounds, and one form for results."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Figure:
    """One measured figure, beside what was promised, if anything was."""

    what: str
    value: float
    unit: str
    promise: float | None = None
    at_least: bool = False
    """Whether the promise is a lower bound; else it is an upper one."""

    @property
    def holds(self) -> bool | None:
        """Whether the promise is kept; None without one."""
        if self.promise is None:
            return None
        return self.value >= self.promise if self.at_least else self.value <= self.promise

    def print(self) -> None:
        """Write one JSON line."""
        print(json.dumps({**asdict(self), "holds": self.holds}), flush=True)


def alternate(rounds: int, *bodies: Callable[[], object]) -> list[float]:
    """Time several bodies in turn, so that whatever else the machine does hits all alike.

    Returns:
        The median seconds of each.
    """
    seconds: list[list[float]] = [[] for _ in bodies]
    for body in bodies:
        body()  # warm-up
    for _ in range(rounds):
        for taken, body in zip(seconds, bodies, strict=True):
            began = time.perf_counter()
            body()
            taken.append(time.perf_counter() - began)
    return [statistics.median(taken) for taken in seconds]
