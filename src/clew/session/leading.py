"""The session of the first rank: it alone hears commands, and decides at which steps all ranks stand still together.

To agree after every step would cost every step a wait. So all ranks *meet* after some steps, the first of which says at
which step the next meeting is: as many steps later as take :data:`MEET_SECONDS`, or earlier where something is due
that depends on the steps alone, such as a save. In between nobody looks at anything. A command is carried out at the
next meeting: it waits for :data:`MEET_SECONDS` and a step at most.
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import NoReturn, TypeVar

from clew.errors import UserError
from clew.runs import Run
from clew.session.crew import Crew
from clew.session.joint import JointSurface
from clew.session.lifecycle import Lifecycle
from clew.session.ranks import Channel, Ranks
from clew.session.session import Session
from clew.session.surface import Checkable, CheckpointConfig, Digestible, LiveConfig, RunStopped, Surface

ConfigT = TypeVar("ConfigT")

MEET_SECONDS = 0.2
"""How long a command waits for a meeting, apart from a step that takes longer."""
_GROWTH = 4
"""By how much the steps between two meetings grow at most; the first steps say little about the others."""


class Leading(Session[ConfigT]):
    """One attempt at a run of several ranks, in the first.

    Args:
        run: The run's directory.
        config: The job's hydrated config.
        attempt: Number of this attempt, which this process has claimed.
        lifecycle: As for :class:`Session`.
        ranks: All of them.
        crew: The other processes.
    """

    def __init__(
        self, run: Run, config: ConfigT, attempt: int, lifecycle: Lifecycle | None, *, ranks: Ranks, crew: Crew
    ) -> None:
        super().__init__(run, config, attempt, lifecycle)
        self.ranks = ranks
        self._crew = crew
        self._channel = Channel(ranks.store, "main", ranks, crew.check)
        self._beside = Channel(ranks.clone(), "beside", ranks, crew.check)
        self._meeting = 0
        self._stride = 1
        self._left = (0, time.monotonic())
        self._notes = (False, False)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        if kind is None or issubclass(kind, RunStopped):
            self._channel.say(do="end")

    def attach(self, surface: Surface, policy: CheckpointConfig | None = None, live: LiveConfig | None = None) -> int:
        """Take charge of the state of all ranks; see :meth:`Session.attach`."""
        self._notes = (isinstance(surface, Digestible), isinstance(surface, Checkable))
        try:
            step = super().attach(JointSurface(surface, self._channel, self._beside, self.run.path), policy, live)
        except RunStopped as stop:
            self._say_stop(stop)
            raise
        self._let_go(step)
        return step

    def checkpoint(self, step: int, *, metric: float | None = None) -> None:
        """Save now, with all ranks; every rank calls this at the same step."""
        super().checkpoint(step, metric=metric)
        self._channel.say(do="on", step=step, meeting=self._meeting)

    def rescue(self, step: int, error: Exception) -> None:
        """Do what ``live.on_nan`` says; every rank calls this at the same step."""
        super().rescue(step, error)
        self._meeting = step

    def boundary(self, step: int, *, metric: float | None = None) -> None:
        """Stand between two steps, if all ranks meet at this one."""
        self._step = step
        if step < self._meeting:
            return
        self._crew.check()
        self._quiet_until = 0  # at a meeting everything is looked at: what came to another rank, nothing here tells
        try:
            super().boundary(step, metric=metric)
        except RunStopped as stop:
            self._say_stop(stop)
            raise
        self._let_go(step)

    def _say_stop(self, stop: RunStopped) -> None:
        self._channel.say(do="stop", state=stop.state.value, reason=stop.reason, step=stop.step)

    def _let_go(self, step: int) -> None:
        """End a meeting: say at which step the next one is."""
        self._meeting = min(step + self._steps_between(step), self._next_due(step))
        self._channel.say(do="on", step=step, meeting=self._meeting)
        self._left = (step, time.monotonic())

    def _steps_between(self, step: int) -> int:
        last, since = self._left
        seconds = (time.monotonic() - since) / max(1, step - last)
        fitting = int(MEET_SECONDS / seconds) if step > last and seconds > 0 else 1
        self._stride = max(1, min(fitting, _GROWTH * self._stride))
        return self._stride

    def _is_digest_due(self, step: int) -> bool:
        return self._notes[0] and super()._is_digest_due(step)

    def _is_health_due(self, step: int) -> bool:
        return self._notes[1] and super()._is_health_due(step)

    def _ends(self) -> bool:
        self._signals.received = self._signals.received or self._crew.signal
        self._crew.check()
        return super()._ends()

    def _require_switch(self) -> NoReturn:
        raise UserError("a run of several ranks cannot go on as another one", hint="fork it without --switch")
