"""The thread that reads a run's directory while the screen is drawn."""

from __future__ import annotations

import threading
from collections.abc import Callable

from clew.cli.screen.watched import Look, Watched

INTERVAL_SECONDS = 0.25


class Reader:
    """Takes one look after the other, and hands each over.

    Args:
        watched: What reads; it belongs to the thread from now on.
        hand_over: Takes a look. It is called in the thread, and must not wait.
        interval: Seconds between two looks; none while there is more to read.
    """

    def __init__(
        self, watched: Watched, hand_over: Callable[[Look], object], *, interval: float = INTERVAL_SECONDS
    ) -> None:
        self._watched = watched
        self._hand_over = hand_over
        self._interval = interval
        self._closed = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._read, name="clew-watch", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def choose(self, metric: str) -> None:
        """Have another metric drawn from the next look on, which comes at once."""
        self._watched.wanted = metric
        self._wake.set()

    def close(self) -> None:
        """Read no more, and wait until the thread is gone."""
        self._closed = True
        self._wake.set()
        self._thread.join()

    def _read(self) -> None:
        while not self._closed:
            self._wake.clear()
            try:
                look = self._watched.look()
            except OSError:  # a disk that hiccups, or a workspace that is being moved: the last look stays
                self._wake.wait(self._interval)
                continue
            self._hand_over(look)
            if not look.is_behind:
                self._wake.wait(self._interval)
