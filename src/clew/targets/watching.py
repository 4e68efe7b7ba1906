"""Waiting for workers, with somebody who is told how it goes."""

from __future__ import annotations

import time
from typing import Protocol

from clew.runs import FINAL, Run, State
from clew.targets.base import Worker

TICK_SECONDS = 0.1


class Watcher(Protocol):
    """Is told what happens to runs; shows it or keeps silent."""

    def started(self, label: str, run: Run) -> None:
        """A run has been started or adopted."""

    def reused(self, label: str, run: Run) -> None:
        """A run was done already and is not run again."""

    def tick(self) -> None:
        """Time has passed: look at the journals."""

    def ended(self, label: str, run: Run, state: State) -> None:
        """A run has reached its end."""


class Silent:
    """A watcher that shows nothing."""

    def started(self, label: str, run: Run) -> None:
        """Show nothing."""

    def reused(self, label: str, run: Run) -> None:
        """Show nothing."""

    def tick(self) -> None:
        """Show nothing."""

    def ended(self, label: str, run: Run, state: State) -> None:
        """Show nothing."""


def is_over(state: State) -> bool:
    """Say whether there is nothing more to wait for; nobody waits for what only an observer calls unknown."""
    return state in FINAL or state is State.UNKNOWN


def follow(worker: Worker, watcher: Watcher, label: str = "") -> State:
    """Wait until a run is over and return its state.

    Ctrl-C asks the run to stop, which saves it first; a second Ctrl-C leaves it to end by itself.
    """
    watcher.started(label, worker.run)
    asked = False
    while True:
        try:
            while not is_over(state := worker.poll()):
                watcher.tick()
                time.sleep(TICK_SECONDS)
            watcher.tick()
            watcher.ended(label, worker.run, state)
            return state
        except KeyboardInterrupt:
            if asked:
                raise
            asked = True
            worker.run.inbox.send("stop")
