"""How long a training waits for the copies of its own state."""

from __future__ import annotations

import time

from clew.train.loop import Trainer


class Waiting:
    """Adds up how long the training waits for copies."""

    def __init__(self, trainer: Trainer) -> None:
        self.seconds = 0.0
        self._settle = trainer._snapshots.settle
        trainer._snapshots.settle = self

    def __call__(self) -> None:
        began = time.perf_counter()
        self._settle()
        self.seconds += time.perf_counter() - began
