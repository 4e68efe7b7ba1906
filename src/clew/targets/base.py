"""What a target is: it starts a worker for a run and tells how it goes. Nothing else."""

from __future__ import annotations

from typing import Protocol

from clew.runs import Run, State


class Worker(Protocol):
    """A started worker, or one that was found alive."""

    run: Run

    @property
    def is_adopted(self) -> bool:
        """Whether somebody else has started it."""

    def poll(self) -> State:
        """Return the run's state now; a worker that ended without saying so is recorded as such first."""


class Target(Protocol):
    """A place where runs execute."""

    def launch(self, run: Run) -> Worker:
        """Start the next attempt at a run, or adopt the worker that is alive."""
