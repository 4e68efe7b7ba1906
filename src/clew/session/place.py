"""Where a live run stands between two steps, as verbs see it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from clew.checkpoints import Checkpoint
from clew.errors import UserError
from clew.runs import Fenced, JournalWriter, Run, State
from clew.session.commands import Standing
from clew.session.saving import Saver
from clew.session.settings import Setting
from clew.session.sources import keep
from clew.session.surface import settings_of

T = TypeVar("T")
_PROGRESS_SECONDS = 0.5


@dataclass(frozen=True)
class Hooks:
    """What a place asks of the session whose run stands there.

    Attributes:
        standing: Returns what the commands so far have led to.
        horizon: Tells how far the run goes.
        end: Remembers how the run is to end here.
        require_switch: Raises if it cannot go on as another one.
        switch: Remembers as which run this process is to go on.
        is_wanted_elsewhere: Whether the run is to end.
    """

    standing: Callable[[], Standing]
    horizon: Callable[[int], None]
    end: Callable[[State, str], None]
    require_switch: Callable[[], None]
    switch: Callable[[str], None]
    is_wanted_elsewhere: Callable[[], bool]


class Place:
    """A :class:`clew.session.verbs.Boundary`.

    Args:
        step: The number of finished steps.
        run: The run.
        journal: Its journal.
        saver: Saves its trainer's state.
        hooks: The session's part.
        metric: Validation loss at that step, if it was just evaluated.
        restored: The finished steps of the state that this attempt began with.
    """

    def __init__(
        self,
        step: int,
        run: Run,
        journal: JournalWriter,
        saver: Saver,
        hooks: Hooks,
        *,
        metric: float | None = None,
        restored: int = 0,
    ) -> None:
        self.step = step
        self.restored = restored
        self.horizon = hooks.horizon
        self.end = hooks.end
        self.require_switch = hooks.require_switch
        self.switch = hooks.switch
        self.is_wanted_elsewhere = hooks.is_wanted_elsewhere
        self._run = run
        self._journal = journal
        self._saver = saver
        self._hooks = hooks
        self._metric = metric
        self._said = 0.0

    @property
    def standing(self) -> Standing:
        """What the commands so far have led to."""
        return self._hooks.standing()

    @property
    def surface(self) -> object:
        """What trains; None where the job has attached nothing."""
        return self._saver.surface

    @property
    def folder(self) -> Path:
        """The run's directory."""
        return self._run.path

    @property
    def can_save(self) -> bool:
        """Whether the job keeps a state from which it could go on."""
        return self._saver.surface is not None

    def settings(self) -> Sequence[Setting]:
        """Return what the trainer lets be set."""
        return settings_of(self._saver.surface)

    def save(self, tag: str = "") -> None:
        """Make the state of this step safe; a save that fails costs nothing but itself."""
        if not self.can_save:
            raise UserError("this job keeps no state to save")
        try:
            self._saver.save(self.step, self._metric)
            if tag:
                self._saver.store.tag(tag, self.step)
        except Fenced:
            raise
        except Exception as error:
            raise UserError(f"the checkpoint could not be saved: {error}") from error

    def save_later(self, then: Callable[[Checkpoint], T]) -> Future[T]:
        """Make the state of this step safe while the training goes on, and do something with the checkpoint."""
        if not self.can_save:
            raise UserError("this job keeps no state to save")
        return self._saver.begin(self.step, then)

    def require_checkpoint(self) -> None:
        """Check that there is a state to come back to."""
        self._saver.finish()
        if self._saver.store.newest_good()[0] is None:
            raise UserError("there is no checkpoint yet", hint="let it save one: pause without --latest")

    def source(self, reference: str) -> Path:
        """Return a checkpoint's folder, and keep its content with the run."""
        self._saver.finish()
        return keep(self._run, reference)

    def log(self, metrics: Mapping[str, float]) -> None:
        """Record metrics of this step."""
        self._journal.write_metrics(self.step, {name: float(value) for name, value in metrics.items()})

    def event(self, kind: str, **fields: Any) -> None:
        """Record anything else that belongs to this step."""
        self._journal.write(kind, step=self.step, **fields)

    def progress(self, done: int, total: int, what: str) -> None:
        """Say how far something long is."""
        now = time.monotonic()
        if done < total and now - self._said < _PROGRESS_SECONDS:
            return
        self._said = now
        self._journal.write("progress", at=self.step, done=done, total=total, what=what)
        self._journal.flush()
