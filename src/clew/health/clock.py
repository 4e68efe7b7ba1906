"""How long steps take, and how much of that is waiting: what the host sees, without asking the device."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any, NamedTuple

WINDOW = 256
"""The steps that are looked back at: enough for a 95th percentile, few enough to forget how it was an hour ago."""
LATE = 0.95
"""The percentile that stands for the slow steps."""


class StepTime(NamedTuple):
    """One step.

    Attributes:
        seconds: From the end of the last step to that of this one, without pauses.
        data: The part of it that was spent in waiting for data.
        paused: What was left out between the two.
        tokens: What was trained on; None where that is not known.
    """

    seconds: float
    data: float
    paused: float
    tokens: int | None


class StepClock:
    """Takes the time of steps; a few microseconds a step, and it never waits for the device.

    On a GPU single steps are queued and not done when :meth:`step_done` is called. Over many steps the queue is full
    and the host goes at the device's pace, so the median is right where a single step's time may not be.

    Args:
        size: How many steps to remember.
        clock: Seconds, monotonic.
    """

    def __init__(self, size: int = WINDOW, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._steps: deque[tuple[float | None, float, float, float, int | None, Any]] = deque(maxlen=size)
        self._begun: float | None = None
        self._waited = 0.0
        self._paused = 0.0
        self._depth = 0

    @contextmanager
    def data(self) -> Iterator[None]:
        """Surround the time in which the step waits for its data; several times in a step where it is cut up."""
        entered = self._clock()
        if self._begun is None:
            self._begun = entered
        try:
            yield
        finally:
            self._waited += self._clock() - entered

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Surround a time that is no part of a step: a validation, a checkpoint, a pause that was asked for.

        Where one lies inside another it counts once.
        """
        entered = self._clock()
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if not self._depth:
                self._paused += self._clock() - entered

    def step_done(self, tokens: int | None = None, loss: Any = None) -> None:
        """Say that a step is done, and the next one begins.

        Args:
            tokens: What it was trained on.
            loss: Whatever is to be remembered as its loss; None for nothing.
        """
        now = self._clock()
        # Made into something with names only when somebody asks, since a training waits for this.
        self._steps.append((self._begun, now, self._waited, self._paused, tokens, loss))
        self._begun, self._waited, self._paused = now, 0.0, 0.0

    @property
    def steps(self) -> list[StepTime]:
        """The steps that are remembered, the newest last, without one whose beginning nobody saw."""
        return [
            StepTime(max(0.0, now - begun - paused), waited, paused, tokens)
            for begun, now, waited, paused, tokens, _ in self._steps
            if begun is not None
        ]

    @property
    def losses(self) -> list[Any]:
        """What was remembered as losses, the newest last."""
        return [loss for *_, loss in self._steps if loss is not None]

    def summary(self) -> dict[str, Any]:
        """Return what the remembered steps come to.

        Returns:
            ``steps`` (how many), ``median_seconds``, ``p95_seconds``, ``data_share`` of the steps' time,
            ``pause_share`` of all time and ``tokens_per_second``; None where there is nothing to say it from.
        """
        steps = self.steps
        if not steps:
            names = ("median_seconds", "p95_seconds", "data_share", "pause_share", "tokens_per_second")
            return {"steps": 0, **dict.fromkeys(names)}
        taken = sorted(step.seconds for step in steps)
        busy, paused = sum(taken), sum(step.paused for step in steps)
        tokens = [step.tokens for step in steps if step.tokens is not None]
        return {
            "steps": len(taken),
            "median_seconds": median(taken),
            "p95_seconds": percentile(taken, LATE),
            "data_share": _share(sum(step.data for step in steps), busy),
            "pause_share": _share(paused, busy + paused),
            "tokens_per_second": _share(sum(tokens), busy) if len(tokens) == len(taken) else None,
        }


def percentile(ordered: list[float], share: float) -> float:
    """Return the smallest of some sorted values that is at least as large as this share of them (nearest rank)."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole > 0 else None
