"""A watcher that tells when a run waits for somebody: its disk is full, and only people make space."""

from __future__ import annotations

import time
from collections.abc import Callable

from clew.notify.notifier import Notifier
from clew.runs import Run, State
from clew.targets.watching import Watcher

_LOOK_SECONDS = 1.0


class TellingWatcher:
    """Watches as another watcher does, and tells of runs that pause because their disk is full.

    Args:
        watcher: Shows what happens.
        notifier: Is told ``waiting``, once for each pause.
        clock: Seconds.
    """

    def __init__(self, watcher: Watcher, notifier: Notifier, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._watcher = watcher
        self._notifier = notifier
        self._clock = clock
        self._looked = 0.0
        self._told: dict[str, int] = {}
        self._runs: dict[str, Run] = {}

    def started(self, label: str, run: Run) -> None:
        """A run has been started or adopted."""
        self._runs[label] = run
        self._watcher.started(label, run)

    def reused(self, label: str, run: Run) -> None:
        """A run was done already."""
        self._watcher.reused(label, run)

    def tick(self) -> None:
        """Look at the runs now and then."""
        self._watcher.tick()
        if self._clock() - self._looked >= _LOOK_SECONDS:
            self._looked = self._clock()
            for label, run in self._runs.items():
                if run.state is State.PAUSED:
                    self._tell(label, run)

    def ended(self, label: str, run: Run, state: State) -> None:
        """A run has reached its end."""
        self._runs.pop(label, None)
        self._watcher.ended(label, run, state)

    def _tell(self, label: str, run: Run) -> None:
        pauses = [*run.events("disk_full")]
        if len(pauses) > self._told.get(run.id, 0):
            self._told[run.id] = len(pauses)
            reason = f"the disk is full: {pauses[-1]['reason']}"
            facts = {"stage": label} if label != run.id else {}
            self._notifier.tell("waiting", run=run.id, job=run.info.job, state="paused", reason=reason, **facts)
