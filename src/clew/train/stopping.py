"""Patience: how long to wait for a better value, as state that a checkpoint can hold."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any


@dataclass
class Patience:
    """Follows a value that should fall.

    Attributes:
        limit: Values in a row without an improvement after which patience is out; None never is.
        min_delta: By how much a value must be below the best to be an improvement.
        best: The lowest value that was an improvement; None before the first.
        best_step: Where it was seen.
        waited: Values since then.
    """

    limit: int | None = None
    min_delta: float = 0.0
    best: float | None = None
    best_step: int = 0
    waited: int = 0

    def update(self, step: int, value: float) -> bool:
        """Take a value, and return whether it is an improvement; one that is no number is none."""
        if value < math.inf if self.best is None else value < self.best - self.min_delta:
            self.best, self.best_step, self.waited = value, step, 0
            return True
        self.waited += 1
        return False

    @property
    def is_out(self) -> bool:
        """Whether it is time to stop."""
        return self.limit is not None and self.waited >= self.limit

    def state(self) -> dict[str, Any]:
        """Return what :meth:`load` takes; limits are not part of it, they are the config's."""
        return {name: value for name, value in asdict(self).items() if name in ("best", "best_step", "waited")}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.best, self.best_step, self.waited = state["best"], state["best_step"], state["waited"]
