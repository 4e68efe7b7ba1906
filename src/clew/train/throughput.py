"""Tokens a second of training, without the time spent on validation and checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Throughput:
    """Counts tokens and the time since the first of them.

    Read it only after something has waited for the device, such as fetching a loss; before that, work may be queued.

    Args:
        clock: Seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._started: float | None = None
        self._tokens = 0
        self._depth = 0

    def start(self) -> None:
        """Begin to count time, unless it is counted already."""
        if self._started is None:
            self._started = self._clock()

    def add(self, tokens: int) -> None:
        """Count tokens."""
        self._tokens += tokens

    @contextmanager
    def excluded(self) -> Iterator[None]:
        """Leave the time of the body out; once, where one lies inside another."""
        left = self._clock()
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if self._started is not None and not self._depth:
                self._started += self._clock() - left

    def read(self) -> float:
        """Return tokens per second since the last reading, and begin anew; 0 when nothing was counted."""
        seconds = self._clock() - self._started if self._started is not None else 0.0
        rate = self._tokens / seconds if seconds > 0 else 0.0
        self._started, self._tokens = None, 0
        return rate
