"""What shows the runs that are followed: plain lines, or nothing; :mod:`clew.cli.bars` draws bars."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from clew.cli.text import clock, headline
from clew.runs import State

if TYPE_CHECKING:
    from clew.cli.progress import Tracked

SILENCE_SECONDS = 3.0
"""So long nothing is said in plain lines of a run that loads what it needs: most need less."""


class Display(Protocol):
    """Shows runs."""

    def begin(self, tracked: Tracked) -> None:
        """A run appears."""

    def load(self, tracked: Tracked) -> None:
        """It still loads what it needs; called again and again meanwhile."""

    def update(self, tracked: Tracked) -> None:
        """There is news of it."""

    def end(self, tracked: Tracked, state: State) -> None:
        """It is over."""

    def note(self, text: str) -> None:
        """Say something besides."""

    def hold(self) -> None:
        """Leave the terminal to somebody who asks, until the next run appears."""


class Lines:
    """Plain lines: one at the start, one at every tenth of the way or every ten seconds, and one at the end."""

    def __init__(self, interval: float = 10.0) -> None:
        self._interval = interval
        self._said: dict[str, tuple[float, int]] = {}
        self._resumed: set[str] = set()
        self._loading: set[str] = set()

    def begin(self, tracked: Tracked) -> None:
        """Say that the run has started, and where."""
        self._said[tracked.label] = (time.monotonic(), (tracked.progress.percent or 0) // 10)
        self._resumed.discard(tracked.label)
        self._loading.discard(tracked.label)
        self.note(f"{tracked.label}: started, attempt {tracked.attempt} ({tracked.run.path})")
        self._say_where_it_goes_on(tracked)

    def load(self, tracked: Tracked) -> None:
        """Say once why nothing happens."""
        if tracked.label not in self._loading and time.monotonic() - tracked.since >= SILENCE_SECONDS:
            self._loading.add(tracked.label)
            self.note(f"{tracked.label}: {tracked.loading}")

    def update(self, tracked: Tracked) -> None:
        """Say how far it is, when it is time to."""
        self._say_where_it_goes_on(tracked)
        progress = tracked.progress
        last, tenth = self._said[tracked.label]
        now, reached = time.monotonic(), (progress.percent or 0) // 10
        if reached != tenth or now - last >= self._interval:
            self._said[tracked.label] = (now, reached)
            self.note(f"{tracked.label}: {progress}")

    def end(self, tracked: Tracked, state: State) -> None:
        """Say how it ended."""
        self._say_where_it_goes_on(tracked)
        progress, seconds = tracked.progress, time.monotonic() - tracked.since
        parts = [f"{state} at {progress.unit} {progress.step} after {clock(seconds)}", headline(progress.metrics)]
        self.note(f"{tracked.label}: {', '.join(part for part in parts if part)}")

    def note(self, text: str) -> None:
        """Print a line."""
        print(text, flush=True)

    def hold(self) -> None:
        """Lines are in nobody's way."""

    def _say_where_it_goes_on(self, tracked: Tracked) -> None:
        """Once, when the attempt has restored a checkpoint; the journal tells it a while after the start."""
        progress = tracked.progress
        if progress.attempt == tracked.attempt and progress.start and tracked.label not in self._resumed:
            self._resumed.add(tracked.label)
            self.note(f"{tracked.label}: goes on from {progress.unit} {progress.start}")


class Quiet:
    """Shows nothing, but to somebody who is asked."""

    def __init__(self) -> None:
        self._asks = False
        self._last = ""

    def begin(self, tracked: Tracked) -> None:
        """Show nothing."""
        self._asks = False

    def load(self, tracked: Tracked) -> None:
        """Show nothing."""

    def update(self, tracked: Tracked) -> None:
        """Show nothing."""

    def end(self, tracked: Tracked, state: State) -> None:
        """Show nothing."""

    def note(self, text: str) -> None:
        """Keep it to oneself, unless somebody is asked."""
        self._last = text
        if self._asks:
            print(text, flush=True)

    def hold(self) -> None:
        """Show what the question is about: what was said last."""
        self._asks = True
        print(self._last, flush=True)
