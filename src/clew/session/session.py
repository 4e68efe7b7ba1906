"""A live run seen from inside its worker.

The session knows nothing about what trains. A job tells it what happened (:meth:`Session.log`, :meth:`Session.event`),
where it is safe to look up (:meth:`Session.boundary`), and how to save and restore (:meth:`Session.attach`).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar

from clew.checkpoints import Checkpoint, CheckpointStore
from clew.errors import UserError
from clew.logs.logger import Logger
from clew.runs import Artifact, Command, JournalWriter, Run, State
from clew.runs.files import path_inside, sync_directory, sync_tree, tree_bytes, tree_digest
from clew.session.lease import LeaseKeeper
from clew.session.signals import StopSignals
from clew.session.surface import CheckpointConfig, RunStopped, Surface

ConfigT = TypeVar("ConfigT")


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
        self._inbox = run.inbox
        self._store = CheckpointStore(run.checkpoints, attempt=attempt, fence=lambda: run.states.check(attempt))
        self._lease = LeaseKeeper(run.states, attempt)
        self._signals = StopSignals()
        self._surface: Surface | None = None
        self._policy = CheckpointConfig()
        self._restored = False
        self._saved_step: int | None = None
        self._wanted: list[Command] = []
        self._stop: tuple[State, str] | None = None
        self._done = self._commands_done()
        self._asked = run.states.read().queued

    def __enter__(self) -> Session[ConfigT]:
        self._lease.__enter__()
        self._signals.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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
            surface.load(checkpoint.path)
            self._saved_step = checkpoint.step
            self._log.info("checkpoint restored", step=checkpoint.step)
        self._restore_event(checkpoint)
        return checkpoint.step if checkpoint else 0

    def checkpoint(self, step: int, *, metric: float | None = None) -> None:
        """Save now; returns when the checkpoint is durable. A step that is saved already is not saved again.

        Args:
            step: The number of finished steps.
            metric: Validation loss at that step, if known; it decides which checkpoint is the best.
        """
        if self._surface is None or self._saved_step == step:
            return
        checkpoint = self._store.save(step, self._surface.save, metric=metric)
        self._saved_step = step
        self._journal.write("checkpoint", step=step, path=f"checkpoints/{checkpoint.path.name}", metric=metric)
        self._journal.flush(sync=True)
        self._log.info("checkpoint saved", step=step)
        self._store.prune(self._policy.keep_last)

    # Boundaries.

    def due(self, step: int) -> bool:
        """Look at the inbox and the signals, and say whether :meth:`boundary` will save at this step."""
        if self._lease.fenced is not None:
            raise self._lease.fenced
        self._wanted.extend(self._accept(self._inbox.poll()))
        if any(command.verb == "stop" for command in self._wanted):
            self._stop = self._stop or (State.STOPPED, "stop was asked for")
        if signal := self._signals.received:
            self._stop = self._stop or (State.INTERRUPTED, f"received {signal}")
        return bool(self._wanted or self._stop) or step % self._policy.every == 0

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
        self.checkpoint(step, metric=metric)
        for command in self._wanted:
            self._settle(command, step, "applied")
        self._wanted.clear()
        if self._stop is not None:
            raise RunStopped(*self._stop, step)

    def _accept(self, commands: list[Command]) -> Iterator[Command]:
        """Pass on new commands; reject what no session understands, and drop what an earlier attempt did already."""
        for command in commands:
            if command.id in self._done or command in self._wanted:
                self._inbox.remove(command) if command.id in self._done else None
            elif command.verb not in ("stop", "checkpoint"):
                self._settle(command, None, "rejected: not a command")
            elif command.verb == "stop" and command.sent < self._asked:
                self._settle(command, None, "expired: the run was resumed after it")
            else:
                yield command

    def _settle(self, command: Command, step: int | None, outcome: str) -> None:
        """Record what became of a command, durably, and only then take it out of the inbox."""
        self._journal.write(
            "command", id=command.id, verb=command.verb, issuer=command.issuer, at=step, outcome=outcome
        )
        self._journal.flush(sync=True)
        self._log.info(f"command {command.verb} {outcome}", id=command.id, issuer=command.issuer, step=step)
        self._done.add(command.id)
        self._inbox.remove(command)

    def _commands_done(self) -> set[str]:
        return {event["id"] for event in self.run.events("command")}

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
