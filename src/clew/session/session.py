"""A live run seen from inside its worker.

The session knows nothing about what trains. A job tells it what happened (:meth:`Session.log`, :meth:`Session.event`),
where it is safe to look up (:meth:`Session.boundary`), and how to save and restore (:meth:`Session.attach`).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar

from clew.checkpoints import Checkpoint, CheckpointStore
from clew.errors import UserError
from clew.logs.logger import Logger
from clew.runs import Artifact, JournalWriter, Run, State
from clew.runs.files import path_inside, read_json, sync_directory, sync_tree, tree_bytes, tree_digest, write_json
from clew.session.lease import LeaseKeeper
from clew.session.place import Place
from clew.session.settings import write
from clew.session.signals import StopSignals
from clew.session.steering import Steering
from clew.session.surface import CheckpointConfig, RunStopped, Surface, idle, settings_of

ConfigT = TypeVar("ConfigT")
_STATE = "session.json"


class Session(Generic[ConfigT]):
    """One attempt at a run.

    Args:
        run: The run's directory.
        config: The job's hydrated config.
        attempt: Number of this attempt, which its worker has claimed.
    """

    def __init__(self, run: Run, config: ConfigT, attempt: int) -> None:
        self.run = run
        self.config = config
        self.attempt = attempt
        self.artifacts: dict[str, Artifact] = {}
        self._journal = JournalWriter(run.path / "journal", attempt)
        self._log = Logger("clew.session", run=run.id, attempt=attempt)
        self._store = CheckpointStore(run.checkpoints, attempt=attempt, fence=lambda: run.states.check(attempt))
        self._lease = LeaseKeeper(run.states, attempt)
        self._signals = StopSignals()
        self._surface: Surface | None = None
        self._policy = CheckpointConfig()
        self._restored = False
        self._saved_step: int | None = None
        self._step = 0
        self._stop: tuple[State, str] | None = None
        self._steering = Steering(run, attempt, self._journal)

    def __enter__(self) -> Session[ConfigT]:
        self._lease.__enter__()
        self._signals.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._steering.close(self._step)
        finally:
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
        final = path_inside(self.run.artifacts, name)
        if final.parent != self.run.artifacts or name.startswith("."):
            raise UserError(f"{name!r} cannot be the name of an artifact", hint="take one without '/' and no dot first")
        staging = self.run.artifacts / f".making-{name}"
        _remove(staging)
        try:
            yield staging
            sync_tree(staging)
        except BaseException:
            _remove(staging)
            raise
        self.run.states.check(self.attempt)
        _remove(final)
        staging.rename(final)
        sync_directory(final.parent)
        path = final.relative_to(self.run.path).as_posix()
        made = self.artifacts[name] = Artifact(path, tree_digest(final), tree_bytes(final))
        self._journal.write("artifact", name=name, path=path, sha256=made.sha256, bytes=made.bytes)
        self._log.info("artifact published", name=name, bytes=made.bytes)

    # Saving and restoring.

    def attach(self, surface: Surface, policy: CheckpointConfig | None = None) -> int:
        """Take charge of a trainer's state: restore the newest good checkpoint, and save at boundaries from now on.

        Args:
            surface: Saves and loads the trainer's complete state.
            policy: How often to save and what to keep.

        Returns:
            The number of finished steps that were restored; 0 for a fresh start.
        """
        self._surface = surface
        self._policy = policy or self._policy
        checkpoint, bad = self._store.newest_good()
        for step, problem in bad.items():
            self._journal.write("checkpoint_bad", at=step, problem=problem)
            self._log.warning(f"checkpoint step {step} cannot be used: {problem}", step=step)
        if checkpoint is not None:
            self._load(surface, checkpoint)
        self._restore_event(checkpoint)
        step = checkpoint.step if checkpoint else 0
        self._stand(step)
        return step

    def _load(self, surface: Surface, checkpoint: Checkpoint) -> None:
        """Restore the trainer, with the settings that were in force, and know which commands that state contains."""
        surface.load(checkpoint.path)
        known = read_json(checkpoint.path / _STATE) if (checkpoint.path / _STATE).is_file() else {}
        self._steering.ledger.restore(checkpoint.step, **known)
        write(settings_of(surface), self._steering.ledger.standing.settings)
        self._saved_step = checkpoint.step
        self._log.info("checkpoint restored", step=checkpoint.step)

    def checkpoint(self, step: int, *, metric: float | None = None) -> None:
        """Save now; returns when the checkpoint is durable. A step that is saved already is not saved again.

        Args:
            step: The number of finished steps.
            metric: Validation loss at that step, if known; it decides which checkpoint is the best.
        """
        if self._surface is None or self._saved_step == step:
            return
        checkpoint = self._store.save(step, partial(self._write, self._surface, step), metric=metric)
        self._saved_step = step
        self._journal.write("checkpoint", step=step, path=f"checkpoints/{checkpoint.path.name}", metric=metric)
        self._journal.flush(sync=True)
        self._log.info("checkpoint saved", step=step)
        self._store.prune(self._policy.keep_last)

    def _write(self, surface: Surface, step: int, directory: Path) -> None:
        """Write the trainer's state, and what commands have to do with it where there were any."""
        surface.save(directory)
        ledger = self._steering.ledger
        known = {"settings": dict(ledger.standing.settings), "contained": ledger.contained(step)}
        if any(known.values()):
            write_json(directory / _STATE, known)

    # Boundaries.

    def due(self, step: int) -> bool:
        """Look at the inbox and the signals, and say whether :meth:`boundary` has anything to do at this step."""
        self._step = step
        self._look()
        return bool(self._stop) or step >= self._steering.ledger.alarm or step % self._policy.every == 0

    def boundary(self, step: int, *, metric: float | None = None) -> None:
        """Stand between two steps: save when it is due, and carry out what was asked for.

        Args:
            step: The number of finished steps.
            metric: Validation loss at that step, if it was just evaluated.

        Raises:
            RunStopped: When the run was asked to stop; everything is saved then. Let it pass.
            Fenced: When another attempt has taken the run over.
        """
        if not self.due(step):
            return
        if step % self._policy.every == 0:
            self.checkpoint(step, metric=metric)
        self._stand(step, metric)

    def _stand(self, step: int, metric: float | None = None) -> None:
        """Carry out commands, and stay as long as the run is paused; leave from here if it is to end."""
        save = partial(self.checkpoint, step, metric=metric) if self._surface is not None else None
        place = Place(
            step,
            standing=lambda: self._steering.ledger.standing,
            settings=lambda: settings_of(self._surface),
            save=save,
            store=self._store,
            horizon=self.horizon,
            end=self._end,
        )
        self._steering.replay(place, lambda values: write(settings_of(self._surface), values))
        self._steering.carry_out(place, self._ends)
        with idle(self._surface):
            self._steering.hold(place, self._ends)
        if self._stop is not None:
            if self._stop[0] is State.INTERRUPTED and save is not None:
                save()
            raise RunStopped(*self._stop, step)

    def _ends(self) -> bool:
        if self._lease.fenced is not None:
            raise self._lease.fenced
        if signal := self._signals.received:
            self._stop = self._stop or (State.INTERRUPTED, f"received {signal}")
        return self._stop is not None

    def _end(self, state: State, reason: str) -> None:
        self._stop = self._stop or (state, reason)

    def _look(self) -> None:
        self._steering.look()
        self._ends()

    def _mark_fresh(self) -> None:
        """Without a surface every attempt starts at step 0, which the journal's readers must know."""
        if not self._restored:
            self._restore_event(None)

    def _restore_event(self, checkpoint: Checkpoint | None) -> None:
        self._restored = True
        self._journal.write("restore", step=checkpoint.step if checkpoint else 0)
        self._journal.flush()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        trash = path.with_name(f".trash-{path.name}-{os.getpid()}")
        path.rename(trash)
        shutil.rmtree(trash)
    else:
        path.unlink(missing_ok=True)
