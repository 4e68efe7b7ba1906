"""Progress: what the journals of the active runs say, as bars in a terminal and as lines elsewhere."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from clew.cli.displays import Display, Lines, Quiet
from clew.cli.interrupt import Interrupt
from clew.cli.screen.telling import tell
from clew.cli.text import clock, headline, is_terminal
from clew.logs.setup import present
from clew.runs import Event, JournalTail, Run, State

_COUNTED = ("metric", "checkpoint")
_FIRST = ("attempt", "layout", "changed", "went_back")
"""What an attempt says before it has loaded the libraries and the model that its job needs."""
_LOUD = ("checkpoint_bad", "checkpoint_fetched")
"""What is said besides how far a run is: it did not go on from where one would think."""


@dataclass
class Progress:
    """What is known of one run, from the events of its journal in their order."""

    attempt: int = 0
    step: int = 0
    start: int = 0
    """The step that the present attempt went on from."""
    total: int | None = None
    unit: str = "step"
    paused: bool = False
    since: float = 0.0
    """When the present attempt began, in Unix seconds; 0 while nothing is known of it."""
    is_loaded: bool = False
    """Whether the present attempt has said more than that it has begun."""
    metrics: dict[str, Any] = field(default_factory=dict)
    _marks: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=50))

    def take(self, event: Event) -> None:
        """Count one event in; an attempt that starts anew leaves the figures of the earlier ones behind."""
        if event["rank"] != 0:
            return
        if event["attempt"] > self.attempt:
            self.attempt, self.start, self.paused = event["attempt"], 0, False
            self.since, self.is_loaded = event["t"], False
            self._marks.clear()
        kind, step = event["kind"], event.get("step")
        self.is_loaded |= kind not in _FIRST
        if kind == "horizon":
            self.total, self.unit = event["total"], event["unit"]
        elif kind in ("paused", "resumed"):
            self.paused = kind == "paused"
            self._marks.clear()  # the time of a pause is not that of a step
        elif kind == "restore" and step is not None:
            self.step = self.start = step
            self.metrics.clear()
            self._marks.append((event["t"], step))
        elif kind in _COUNTED and step is not None:
            self.metrics.update(event.get("values", {}))
            if step > self.step or not self._marks:
                self._marks.append((event["t"], step))
            self.step = max(self.step, step)

    @property
    def rate(self) -> float | None:
        """Steps in a second, over the latest events of this attempt; None while that is not known."""
        if len(self._marks) < 2:
            return None
        (first, low), (last, high) = self._marks[0], self._marks[-1]
        return (high - low) / (last - first) if last > first and high > low else None

    @property
    def seconds_left(self) -> float | None:
        """An estimate; None while it is not known."""
        rate = self.rate
        return (self.total - self.step) / rate if rate and self.total is not None and self.total >= self.step else None

    @property
    def percent(self) -> int | None:
        """How much is done; None without a horizon."""
        return 100 * self.step // self.total if self.total else None

    def __str__(self) -> str:
        total = f"/{self.total} ({self.percent} %)" if self.total else ""
        paused = "paused" if self.paused else ""
        parts = [f"{self.unit} {self.step}{total}", paused, self.speed, headline(self.metrics), self.remaining]
        return ", ".join(part for part in parts if part)

    @property
    def speed(self) -> str:
        """The rate in words; empty while it is not known."""
        return f"{self.rate:.3g} {self.unit}/s" if self.rate else ""

    @property
    def remaining(self) -> str:
        """The time left in words; empty while it is not known, and at the end."""
        return f"{clock(self.seconds_left)} left" if self.seconds_left else ""


class Tracked:
    """An active run with its journal."""

    def __init__(self, label: str, run: Run) -> None:
        self.label = label
        self.run = run
        self.progress = Progress()
        self.attempt = run.states.read().attempt
        self.since = time.monotonic()
        self.told: list[str] = []
        self._tail = JournalTail(run.path / "journal")

    def poll(self) -> bool:
        """Read on; say whether there was anything new."""
        events = self._tail.poll()
        for event in events:
            self.progress.take(event)
            if _begins_anew(event) and event.get("attempt") == self.attempt:
                self.told.append("begins anew: it has no checkpoint that can be used")
            if _is_loud(event) and event.get("attempt") == self.attempt and (line := tell(event)):
                self.told.append(f"step {line.step}: {line.text}")
        return bool(events)

    @property
    def is_loading(self) -> bool:
        """Whether the attempt has begun, and is not at its work yet, as far as its journal tells."""
        return self.progress.attempt < self.attempt or not self.progress.is_loaded

    @property
    def loading(self) -> str:
        """What it does meanwhile."""
        return loading(self.run.info.job)

    def news(self) -> list[str]:
        """Return what is to be said besides how far it is, once."""
        told, self.told = self.told, []
        return told


def loading(job: str) -> str:
    """Say what a worker does that has begun, and is not at its work yet."""
    return f"loading what {job.rpartition(':')[2]} needs"


def _begins_anew(event: Event) -> bool:
    """A later attempt that has lost what the earlier ones did."""
    return event["kind"] == "restore" and event.get("step") == 0 and event.get("attempt", 1) > 1


def _is_loud(event: Event) -> bool:
    """Who follows a run hears of what was asked of it, by a fork or from another terminal, and was not done."""
    return event["kind"] in _LOUD or (event["kind"] == "command" and str(event["outcome"]).startswith("rejected"))


class ProgressWatcher:
    """A watcher that reads the journals of the active runs and has them shown.

    It is also where a Ctrl-C comes through: in :meth:`tick`, where whoever waits for the runs expects it.

    Args:
        display: Shows the runs.
        interrupt: Keeps a Ctrl-C until the next tick.
        interval: Seconds between two looks at the journals.
    """

    def __init__(self, display: Display, interrupt: Interrupt, interval: float = 0.2) -> None:
        self._display = display
        self._interrupt = interrupt
        self._interval = interval
        self._active: dict[str, Tracked] = {}
        self._looked = 0.0

    def started(self, label: str, run: Run) -> None:
        """Show a run that has been started or adopted."""
        tracked = self._active[label] = Tracked(label, run)
        tracked.poll()
        self._display.begin(tracked)

    def reused(self, label: str, run: Run) -> None:
        """Say that a run is done already."""
        self._display.note(f"{label}: done already, {run.id} is kept")

    def tick(self) -> None:
        """Look at the journals; raises KeyboardInterrupt when Ctrl-C was pressed."""
        if time.monotonic() - self._looked >= self._interval:
            self._looked = time.monotonic()
            for tracked in self._active.values():
                has_news = tracked.poll()
                self._say_news(tracked)
                if tracked.is_loading:
                    self._display.load(tracked)
                elif has_news:
                    self._display.update(tracked)
        if self._interrupt.pending:
            self._display.note(self._what_happens())
            self._interrupt.deliver()

    def ended(self, label: str, run: Run, state: State) -> None:
        """Show how a run ended."""
        tracked = self._active.pop(label)
        tracked.poll()
        self._say_news(tracked)
        self._display.end(tracked, state)

    def note(self, text: str) -> None:
        """Say something that no run tells."""
        self._display.note(text)

    def hold(self) -> None:
        """Leave the terminal to somebody who asks, until the next run appears."""
        self._display.hold()

    def _say_news(self, tracked: Tracked) -> None:
        for text in tracked.news():
            self._display.note(f"{tracked.label}: {text}")

    def _what_happens(self) -> str:
        names = ", ".join(self._active) or "nothing is running"
        if self._interrupt.count > 1:
            return f"clew: leaving; what runs here ends by itself when it has saved ({names})"
        return f"clew: stopping, each run saves first: {names} (Ctrl-C again to leave without waiting)"


@contextmanager
def watching() -> Iterator[ProgressWatcher]:
    """Give the watcher that fits stdout, for as long as runs are waited for; who wants quiet gets none to see."""
    with Interrupt() as interrupt:
        if present().level == "quiet":
            yield ProgressWatcher(Quiet(), interrupt)
        elif is_terminal():
            from clew.cli.bars import Bars

            with Bars() as bars:
                yield ProgressWatcher(bars, interrupt)
        else:
            yield ProgressWatcher(Lines(), interrupt)
