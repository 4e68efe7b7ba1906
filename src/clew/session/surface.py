"""What a session needs of whatever trains, and how a live run ends early."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Protocol, runtime_checkable

from pydantic import Field

from clew.config import NOT_HASHED, config
from clew.runs import State
from clew.session.settings import Setting


class Surface(Protocol):
    """The control surface of a trainer: its complete state, out and in.

    Complete means that a fresh trainer that loads it goes on bitwise as the saved one would have: weights, optimizer,
    schedule, random generators, data position.
    """

    def save(self, directory: Path) -> None:
        """Write the complete state as files into an empty directory."""

    def load(self, directory: Path) -> None:
        """Take over the state that :meth:`save` wrote there."""


@runtime_checkable
class Adjustable(Protocol):
    """A surface that lets some of its numbers be changed between two steps: ``clew set``."""

    def settings(self) -> Sequence[Setting]:
        """Return what can be set, with the bounds of the moment."""


@runtime_checkable
class Timed(Protocol):
    """A surface that measures how quick it is."""

    def idle(self) -> AbstractContextManager[None]:
        """Surround a time in which nothing is done on purpose."""


def settings_of(surface: Surface | None) -> Sequence[Setting]:
    """Return what can be set; nothing for a surface that is not adjustable."""
    return surface.settings() if isinstance(surface, Adjustable) else ()


def idle(surface: Surface | None) -> AbstractContextManager[None]:
    """Surround the time in which a run is paused."""
    return surface.idle() if isinstance(surface, Timed) else nullcontext()


@config
class CheckpointConfig:
    """When to save, and what to keep."""

    every: Annotated[int, Field(ge=1), NOT_HASHED] = 50
    """Save after this many steps."""
    keep_last: Annotated[int, Field(ge=1), NOT_HASHED] = 2
    """How many of the newest checkpoints to keep; the best by validation loss is kept besides."""


@dataclass(frozen=True)
class Outcome:
    """What a job returns: its final figures, and notes for the result that are no figures."""

    metrics: dict[str, float] = field(default_factory=dict)
    intervals: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Of some metrics: ``{low, high, method, ...}``, at 95 %."""
    notes: dict[str, Any] = field(default_factory=dict)


class RunStopped(BaseException):
    """Unwinds a job whose state is safe; no error, so no ``except Exception`` on the way may catch it.

    Args:
        state: ``stopped`` (somebody asked) or ``interrupted`` (a signal came).
        reason: For the journal.
        step: Where the run stands.
    """

    def __init__(self, state: State, reason: str, step: int) -> None:
        super().__init__(f"{state} at step {step}: {reason}")
        self.state = state
        self.reason = reason
        self.step = step
