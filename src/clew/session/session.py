"""A live run seen from inside its worker.

The session knows nothing about what trains. A job tells it what happened (:meth:`Session.log`, :meth:`Session.event`),
where it is safe to look up (:meth:`Session.boundary`), and how to save and restore (:meth:`Session.attach`).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar

from clew.checkpoints import Checkpoint
from clew.errors import NotFinite
from clew.logs.logger import Logger
from clew.runs import Artifact, Command, JournalWriter, Run, State
from clew.runs.disk import is_full
from clew.session.disturbance import Disturbance
from clew.session.forking import overridden
from clew.session.lease import LeaseKeeper
from clew.session.lifecycle import Lifecycle, claim, share_log
from clew.session.place import Hooks, Place
from clew.session.publishing import described, published
from clew.session.ranks import Ranks
from clew.session.saving import Saver
from clew.session.settings import write
from clew.session.signals import StopSignals
from clew.session.space import Space
from clew.session.steering import Steering
from clew.session.surface import (
    Checkable,
    CheckpointConfig,
    Digestible,
    LiveConfig,
    RunStopped,
    Surface,
    idle,
    settings_of,
)
from clew.session.verbs.health import note_health

ConfigT = TypeVar("ConfigT")

MOST_ROLLBACKS = 3
"""How often a run goes back to the same checkpoint's weights before it fails."""


class Session(Generic[ConfigT]):
    """One attempt at a run.

    Args:
        run: The run's directory.
        config: The job's hydrated config.
        attempt: Number of this attempt, which its worker has claimed.
        lifecycle: Is told when the process goes on as another run.
    """

    def __init__(self, run: Run, config: ConfigT, attempt: int, lifecycle: Lifecycle | None = None) -> None:
        self.config = config
        self.ranks = Ranks()
        self._lifecycle = lifecycle or Lifecycle()
        self._disturbance = Disturbance()
        self._signals = StopSignals(self._disturbance)
        self._live = LiveConfig()
        self._step = 0
        self._stop: tuple[State, str] | None = None
        self._switch: str = ""
        self._total: int | None = None
        self._rollbacks = 0
        self._trouble: tuple[int, Exception] | None = None
        self._noted = -1
        self._quiet_until = 0
        self._take_up(run, attempt)

    def _take_up(self, run: Run, attempt: int) -> None:
        """Be the session of this attempt at this run."""
        self.run = run
        self.attempt = attempt
        self.artifacts: dict[str, Artifact] = {}
        self._journal = JournalWriter(run.path / "journal", attempt)
        self._log = Logger("clew.session", run=run.id, attempt=attempt)
        tell = self._disturbance.come
        tell()  # there may be something already
        self._lease = LeaseKeeper(run.states, attempt, tell=tell)
        fetch = partial(self._lifecycle.fetch, run, attempt)
        self._saver = Saver(run, attempt, self._journal, self._known, tell=tell, fetch=fetch)
        self._steering = Steering(run, attempt, self._journal, self._disturbance)
        self._space = Space(run, self._journal)
        self._restored: int | None = None

    def __enter__(self) -> Session[ConfigT]:
        self._lease.__enter__()
        self._signals.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.settled()
                self._steering.close(self._step)
        finally:
            self._saver.close()
            self.run.inbox.mute()
            self._signals.__exit__(kind, error, trace)
            self._lease.__exit__(kind, error, trace)
            self._journal.close()

    # What a job says.

    def log(self, step: int, /, metrics: Mapping[str, Any] | None = None, **more: Any) -> None:
        """Record metrics of a step.

        Args:
            step: The number of finished steps.
            metrics: Names to floats or to tensors of one element; use it for names that are no identifiers.
            more: The same, as keywords.
        """
        self._mark_fresh()
        given = {**(metrics or {}), **more} if more else metrics or {}
        values = {name: float(value) for name, value in given.items()}
        self._journal.write_metrics(int(step), values)

    def event(self, kind: str, **fields: Any) -> None:
        """Record anything else, such as a rollout or a generation.

        Args:
            kind: What it is, such as ``generation``.
            fields: What there is to say, as JSON. With ``step`` it is superseded when a later attempt does that step
                again.
        """
        if "step" in fields:
            self._mark_fresh()
        self._journal.write(kind, **fields)

    def events(self, kind: str) -> list[dict[str, Any]]:
        """Return the run's events of a kind so far, of all attempts, without those that were superseded."""
        self._journal.flush()
        return list(self.run.events(kind))

    def horizon(self, total: int, unit: str = "step") -> None:
        """Say how far this run goes, for those who show its progress.

        Args:
            total: The number of the last step.
            unit: What a step is called.
        """
        self._total = total
        self._quiet_until = 0
        self._journal.write("horizon", total=total, unit=unit)
        self._journal.flush()

    @contextmanager
    def artifact(self, name: str) -> Iterator[Path]:
        """Give a path under which the body creates a file or folder; it is published when the body succeeds.

        Args:
            name: The artifact's name, which is that of a file or folder in ``artifacts/``.

        Raises:
            UserError: If the name is none, such as one that leads elsewhere.
        """
        with published(self.run, self.attempt, name) as path:
            yield path
        made = self.artifacts[name] = described(self.run, name)
        self._journal.write("artifact", name=name, path=made.path, sha256=made.sha256, bytes=made.bytes)
        self._log.info("artifact published", name=name, bytes=made.bytes)

    # Saving and restoring.

    def attach(self, surface: Surface, policy: CheckpointConfig | None = None, live: LiveConfig | None = None) -> int:
        """Take charge of a trainer's state: restore the newest good checkpoint, and save at boundaries from now on.

        Args:
            surface: Saves and loads the trainer's complete state.
            policy: How often to save and what to keep.
            live: What the run notes about itself, and what it does in trouble.

        Returns:
            The number of finished steps that were restored; 0 for a fresh start.
        """
        self._saver.surface = surface
        self._saver.policy = policy or self._saver.policy
        self._live = live or self._live
        self._quiet_until = 0
        checkpoint = self._saver.newest()
        if checkpoint is not None:
            self._load(surface, checkpoint)
        self._restore_event(checkpoint)
        self._journal.write("settings", keys={setting.name: setting.key for setting in settings_of(surface)})
        self._step = checkpoint.step if checkpoint else 0
        self._look()  # commands may wait already: a child's selection is one
        self._stand(self._step)
        return self._step

    def _load(self, surface: Surface, checkpoint: Checkpoint) -> None:
        """Restore the trainer, with the settings that were in force, and know which commands that state contains."""
        known = self._saver.load(checkpoint)
        info, settings = self.run.info, settings_of(surface)
        # A child's config says some things anew, which its parent may have had set to something else.
        anew = overridden(settings, info.changes) if checkpoint.step == info.fork_step else {}
        inherited = {name: value for name, value in known.get("settings", {}).items() if name not in anew}
        contained = () if checkpoint.step == info.fork_step else known.get("contained", ())
        self._steering.ledger.restore(checkpoint.step, settings=inherited, contained=contained)
        write(settings, self._steering.ledger.standing.settings)
        for setting in anew.values():
            if (configured := setting.read()) is not None:
                setting.write(configured)

    def _known(self, step: int) -> dict[str, Any]:
        """What commands have to do with the state of a step."""
        ledger = self._steering.ledger
        return {"settings": dict(ledger.standing.settings), "contained": ledger.contained(step)}

    def checkpoint(self, step: int, *, metric: float | None = None) -> None:
        """Save now; returns when the checkpoint is durable. A step that is saved already is not saved again.

        Args:
            step: The number of finished steps.
            metric: Validation loss at that step, if known; it decides which checkpoint is the best.
        """
        try:
            self._saver.save(step, metric)
        except Exception as error:
            if not is_full(error):
                raise
            self._space.lacks(step, metric, error)
        self._rollbacks = 0

    def settled(self) -> Run:
        """Return the run, with everything durable that was begun to be saved; for who looks for checkpoints itself.

        Raises:
            Exception: What went wrong with it.
        """
        self._saver.complete()
        self._space.check()
        return self.run

    def rescue(self, step: int, error: Exception) -> None:
        """Do what ``live.on_nan`` says about a loss or gradient that is no longer finite.

        To be called before the boundary of that step, which then carries out the pause or the rollback; like every
        command it stands in the journal, so that a replay does the same.

        Args:
            step: The number of finished steps.
            error: What to raise where the run cannot go on.

        Raises:
            Exception: The error, if the run is to fail, has no checkpoint to go back to, or went back too often.
        """
        if self._live.on_nan == "stop" or self._saver.surface is None or self._rollbacks >= MOST_ROLLBACKS:
            raise error
        self._saver.finish()
        if self._saver.store.newest_good()[0] is None:
            raise error
        self._journal.write("trouble", at=step, reason=str(error), on_nan=self._live.on_nan)
        self._trouble = (step, error)
        self._quiet_until = 0
        if self._live.on_nan == "pause":
            # Not with `at`: of a run that is stopped here nothing is to be left that pauses it when it is resumed.
            self.run.inbox.post(Command("pause", {"save": False}, issuer="on_nan", before=step + 1))
            return
        self._rollbacks += 1
        self.run.inbox.post(Command("reset", {"to": "last"}, issuer="on_nan", at=step))

    # Boundaries.

    def due(self, step: int) -> bool:
        """Look at the inbox and the signals, and say whether :meth:`boundary` has anything to do at this step."""
        self._step = step
        if step < self._quiet_until and not self._disturbance.has_come:
            return False
        self._disturbance.take()
        self._look()
        is_due = self._is_due(step)
        self._quiet_until = step if is_due or not self._steering.is_heard else self._next_due(step)
        return is_due

    def _next_due(self, step: int) -> int:
        """The next step at which something is due that the steps alone decide."""
        periods = (self._live.digest_every, self._live.health_every)
        due: list[float] = [step - step % period + period for period in periods if period]
        due.append(self._saver.next_due(step))
        due.append(max(self._steering.ledger.alarm, step + 1))
        if self._total is not None and self._total > step:
            due.append(self._total)
        first = min(due)
        return int(first) if math.isfinite(first) else sys.maxsize

    def _is_due(self, step: int) -> bool:
        return (
            bool(self._stop)
            or step >= self._steering.ledger.alarm
            or bool(self._saver.due(step))
            or self._saver.has_failed()
            or self._notes_at(step)
            or self._trouble is not None
            or self._space.is_lacking
        )

    def boundary(self, step: int, *, metric: float | None = None) -> None:
        """Stand between two steps: save when it is due, and carry out what was asked for.

        Args:
            step: The number of finished steps.
            metric: Validation loss at that step, if it was just evaluated.

        Raises:
            RunStopped: When the run was asked to stop; everything is saved then. Let it pass.
            Fenced: When another attempt has taken the run over.
        """
        self._step = step
        if step < self._quiet_until and not self._disturbance.has_come:
            return  # as `due` would say: a call less for every step
        if not self.due(step):
            return
        if self._trouble is None and not self._space.is_lacking:
            self._keep(step, metric)
        if self._trouble is not None or self._space.is_lacking:
            self._steering.look_closely()
        self._stand(step, metric)
        trouble, self._trouble = self._trouble, None
        if trouble is not None and not self._steering.was_applied_at(step, issuer="on_nan"):
            raise trouble[1]
        while self._space.is_lacking:
            self._space.try_again(self._saver, step, paused=self._steering.was_applied_at(step, issuer=Space.ISSUER))
            self._steering.look_closely()
            self._stand(step, metric)

    def _keep(self, step: int, metric: float | None) -> None:
        """Save where it is due, and note what is due; a state that is no longer finite is not worth it."""
        try:
            if self._saver.due(step):
                self._saver.keep(step, metric)
                self._rollbacks = 0
            elif self._saver.has_failed():
                self._saver.complete()
            self._note(step)
        except NotFinite as error:
            self.rescue(step, error)
        except Exception as error:
            if not is_full(error):
                raise
            self._space.lacks(step, metric, error)

    def _stand(self, step: int, metric: float | None = None) -> None:
        """Carry out commands, and stay as long as the run is paused; leave from here if it is to end."""
        self._act(step, metric)
        while self._switch:
            self._become(self._switch, step)
            self._look()
            self._act(step, metric)
        if self._stop is not None:
            self._steering.finish()
            if self._stop[0] is State.INTERRUPTED and self._saver.surface is not None and self._trouble is None:
                self._save_before_leaving(step, metric)
            raise RunStopped(*self._stop, step)

    def _save_before_leaving(self, step: int, metric: float | None) -> None:
        try:
            self._saver.save(step, metric)
        except Exception as error:
            if not is_full(error):
                raise
            self._log.error(f"the state could not be saved, the checkpoint before stays: {error}", step=step)

    def _act(self, step: int, metric: float | None) -> None:
        place = self._place(step, metric)
        self._steering.replay(place)
        self._steering.carry_out(place, self._ends)
        with idle(self._saver.surface):
            self._steering.hold(place, self._ends)

    def _place(self, step: int, metric: float | None = None) -> Place:
        hooks = Hooks(
            standing=lambda: self._steering.ledger.standing,
            horizon=self.horizon,
            end=self._end,
            require_switch=self._require_switch,
            switch=self._go_on_as,
            is_wanted_elsewhere=self._is_wanted_elsewhere,
        )
        return Place(step, self.run, self._journal, self._saver, hooks, metric=metric, restored=self._restored or 0)

    def _become(self, name: str, step: int) -> None:
        """Go on as a child, whose first checkpoint holds the state of this step; the parent has ended here."""
        parent, attempt, before = self.run, self.attempt, self._steering.ledger.standing.settings
        self._switch = ""
        self._steering.finish()
        self._saver.close()
        parent.inbox.mute()
        self._lease.__exit__(None, None, None)
        self._journal.write("switched", at=step, child=name)
        self._journal.close()
        surface, policy, artifacts = self._saver.surface, self._saver.policy, self.artifacts
        child = Run(parent.path.parent / name)
        number = claim(child)
        share_log(parent.log_path(attempt), child.log_path(number))
        self._take_up(child, number)
        self._lifecycle.left(parent, attempt, name, step, artifacts)
        self._lifecycle.entered(child, number)
        self._saver.surface, self._saver.policy, self._saver.saved_step = surface, policy, step
        anew = overridden(settings_of(surface), child.info.changes)
        inherited = {setting: value for setting, value in before.items() if setting not in anew}
        self._steering.ledger.restore(step, settings=inherited)
        self._lease.__enter__()
        self._restored = step
        self._journal.write("restore", step=step)
        if self._total is not None:
            self.horizon(self._total)
        self._log.info(f"this process goes on as {name}", parent=parent.id, step=step)

    def _notes_at(self, step: int) -> bool:
        """Whether the run notes something about itself at this step."""
        return self._is_digest_due(step) or self._is_health_due(step)

    def _is_digest_due(self, step: int) -> bool:
        every = self._live.digest_every
        return every is not None and (step % every == 0 or step == self._total)

    def _is_health_due(self, step: int) -> bool:
        every = self._live.health_every
        return every is not None and step % every == 0

    def _note(self, step: int) -> None:
        """Note a hash of the state and how the training is doing, where they are due."""
        surface: object = self._saver.surface
        if self._noted == step:
            return
        self._noted = step
        with idle(self._saver.surface):
            if self._is_digest_due(step) and isinstance(surface, Digestible):
                self._journal.write("digest", step=step, **surface.digests())
            if self._is_health_due(step) and isinstance(surface, Checkable):
                note_health(self._place(step))

    def _ends(self) -> bool:
        if self._lease.fenced is not None:
            raise self._lease.fenced
        if signal := self._signals.received:
            self._stop = self._stop or (State.INTERRUPTED, f"received {signal}")
        return self._stop is not None or bool(self._switch)

    def _end(self, state: State, reason: str) -> None:
        self._stop = self._stop or (state, reason)

    def _require_switch(self) -> None:
        """One process can always go on as another run."""

    def _go_on_as(self, child: str) -> None:
        self._switch = child

    def _is_wanted_elsewhere(self) -> bool:
        self._look()
        waiting = self._steering.ledger.waiting
        ending = any(command.verb in ("stop", "abort") and command.at is None for command in waiting)
        return self._stop is not None or ending

    def _look(self) -> None:
        self._steering.look()
        self._ends()

    def _mark_fresh(self) -> None:
        """Without a surface every attempt starts at step 0, which the journal's readers must know."""
        if self._restored is None:
            self._restore_event(None)

    def _restore_event(self, checkpoint: Checkpoint | None) -> None:
        self._restored = checkpoint.step if checkpoint else 0
        self._journal.write("restore", step=self._restored)
        self._journal.flush()
