"""A trainer's checkpoints as its run sees them: restored, saved at a boundary, or saved while it trains on.

One checkpoint is written at a time. Where the next is due while one is still being written, the training waits for it:
so which checkpoints there are depends on the steps alone, and not on how quick a disk is. As the training goes on while
one is written, another is begun halfway to the next, and stays until that is safe: so a crash costs no more steps than
lie between two saves. What goes wrong beside the training stands in the journal at once, and ends the run, or lets it
pause, at the next boundary.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from clew.checkpoints import Checkpoint, CheckpointStore
from clew.checkpoints.counted import counted_checkpoints
from clew.errors import UserError
from clew.logs.logger import Logger
from clew.runs import JournalWriter, Run
from clew.runs.files import read_json, write_json
from clew.session.lifecycle import Fetched
from clew.session.surface import CheckpointConfig, Snapshotting, Surface

T = TypeVar("T")
Known = Mapping[str, Any]
_STATE = "session.json"


class Saver:
    """Saves one trainer's state, one checkpoint at a time.

    Args:
        run: The run.
        attempt: Number of this attempt.
        journal: Where checkpoints are noted.
        known: ``known(step)`` returns what the session itself has to keep with a state; empty for nothing.
        clock: Seconds, for saves by time.
        fetch: ``fetch(steps)`` brings back one of these checkpoints from where their copies are, if there are any; see
            :meth:`clew.session.lifecycle.Lifecycle.fetch`.
        tell: Called when something went wrong beside the training.

    Attributes:
        store: The run's checkpoints.
        surface: The trainer; None before there is one.
        policy: When to save, and what to keep.
        saved_step: The newest step whose state is durable.
    """

    def __init__(
        self,
        run: Run,
        attempt: int,
        journal: JournalWriter,
        known: Callable[[int], Known],
        *,
        clock: Callable[[], float] = time.monotonic,
        fetch: Callable[[Mapping[int, int]], Fetched | None] = lambda steps: None,
        tell: Callable[[], None] = lambda: None,
    ) -> None:
        self.store = CheckpointStore(run.checkpoints, attempt=attempt, fence=lambda: run.states.holding(attempt))
        self.surface: Surface | None = None
        self.policy = CheckpointConfig()
        self.saved_step: int | None = None
        self._run = run
        self._journal = journal
        self._known = known
        self._clock = clock
        self._fetch = fetch
        self._tell = tell
        self._began = clock()
        self._due: tuple[int, str] = (-1, "")
        self._log = Logger("clew.session", run=run.id, attempt=attempt)
        self._thread: ThreadPoolExecutor | None = None
        self._busy: Future[Any] | None = None
        self._failure: tuple[int, BaseException] | None = None
        self._halfway: set[int] = set()
        """Steps whose checkpoints of this attempt are to go once the next is safe."""
        self._is_half = False

    def newest(self) -> Checkpoint | None:
        """Return the newest checkpoint that verifies, and note what is wrong with newer ones.

        Where none does, though the run has saved some, the newest is fetched from where their copies are.

        Raises:
            ClewError: If there should be copies, and none can be had.
        """
        checkpoint, bad = self.store.newest_good()
        for step, problem in bad.items():
            self._journal.write("checkpoint_bad", at=step, problem=problem)
            self._log.warning(f"checkpoint step {step} cannot be used: {problem}", step=step)
        return checkpoint or self._fetched(bad)

    def _fetched(self, bad: Collection[int]) -> Checkpoint | None:
        self._journal.flush()
        steps = {**dict.fromkeys(bad, 0), **counted_checkpoints(self._run)}
        found = self._fetch(steps) if steps else None
        if found is None:
            return None
        self._journal.write(
            "checkpoint_fetched", at=found.step, source=found.source, bytes=found.bytes, fetched=found.fetched
        )
        self._log.warning(
            f"no checkpoint here can be used: step {found.step} was fetched from {found.source} "
            f"({found.fetched:,} of {found.bytes:,} bytes were not here)",
            step=found.step,
        )
        return self.store.newest_good()[0]

    def load(self, checkpoint: Checkpoint) -> Known:
        """Restore the trainer, and return what the session has kept with that state."""
        assert self.surface is not None
        self.surface.load(checkpoint.path)
        self.saved_step = checkpoint.step
        self._began = self._clock()
        self._log.info("checkpoint restored", step=checkpoint.step)
        return kept_with(checkpoint)

    def due(self, step: int) -> str:
        """Return why a save is due at a step: ``steps``, ``minutes`` or ``halfway``; empty when none is.

        The clock is asked once for a step, so that whoever asks twice is told the same.
        """
        if self._due[0] != step:
            self._due = (step, self._why(step))
        return self._due[1]

    def next_due(self, step: int) -> float:
        """Return the next step at which :meth:`due` may say that a save is due; infinite when there is none."""
        if self.policy.minutes is not None:
            return step + 1
        every = self.policy.every
        if every is None:
            return math.inf
        half = every // 2
        return min(step - step % every + every, step - (step - half) % every + every if half else math.inf)

    def has_failed(self) -> bool:
        """Whether something went wrong beside the training that nobody has been told yet."""
        return self._failure is not None

    def keep(self, step: int, metric: float | None = None) -> None:
        """Save the state of a step at which it is due; it is written while the training goes on, where that can be.

        Raises:
            Exception: What went wrong with the save before, or with this one as far as it is waited for.
        """
        self.complete()
        if self.surface is None or self.saved_step == step:
            return
        why = self.due(step)
        self._is_half = why == "halfway"
        if self._is_half:
            self._halfway.add(step)
        snapshot = self._snapshot() if self._goes_on else None
        if snapshot is None:
            self._commit(step, partial(_write, self.surface.save, self._known(step)), metric, why)
        else:
            self._busy = self._submit(
                partial(self._beside, step, partial(_write, snapshot, self._known(step)), metric, why)
            )
        self._began = self._clock()

    def save(self, step: int, metric: float | None = None) -> None:
        """Save now; returns when the checkpoint is durable. A step that is saved already is not saved again."""
        self.finish()
        self._halfway.discard(step)  # somebody wants this one
        if self.surface is None or self.saved_step == step:
            return
        self._commit(step, partial(_write, self.surface.save, self._known(step)), metric)
        self._began = self._clock()
        if self._failure is not None and self._failure[0] == step:
            self._failure = None  # that very state is safe now

    def begin(self, step: int, then: Callable[[Checkpoint], T]) -> Future[T]:
        """Save the state of this moment while the training goes on, as far as the trainer can do that.

        Args:
            step: The number of finished steps.
            then: Called with the checkpoint once it is durable, in another thread.

        Returns:
            What comes of ``then``. The next save waits for it.
        """
        self.finish()
        if self.surface is None:
            raise UserError("this job keeps no state to save")
        known = self._known(step)
        saved = next((one for one in self.store.all() if one.step == step == self.saved_step), None)
        if saved is not None and _same(kept_with(saved), known):
            self._busy = self._submit(lambda: then(saved))
            return self._busy
        # Commands of this very step may have come after it was saved: a child is to begin with what they did.
        metric = saved.manifest.metric if saved is not None else None
        snapshot = self._snapshot()
        if snapshot is None:
            made = self._commit(step, partial(_write, self.surface.save, known), metric)
            self._busy = self._submit(lambda: then(made))
        else:
            self._busy = self._submit(lambda: then(self._commit(step, partial(_write, snapshot, known), metric)))
        return self._busy

    def finish(self) -> None:
        """Wait for what was begun; how it ended is told where it was asked for, or by :meth:`complete`."""
        if self._busy is not None:
            self._busy.exception()
            self._busy = None

    def complete(self) -> None:
        """Wait for what was begun, and raise what went wrong beside the training, once."""
        self.finish()
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure[1]

    def close(self) -> None:
        """Wait for what was begun, and take nothing more."""
        self.finish()
        if self._thread is not None:
            self._thread.shutdown()

    @property
    def _bridges(self) -> bool:
        """Whether saves halfway are due as well."""
        return self.policy.halfway and self.policy.asynchronous and isinstance(self.surface, Snapshotting)

    @property
    def _goes_on(self) -> bool:
        """Whether the training goes on while a state is written; not where every step is one that must be safe."""
        return self.policy.asynchronous and not (self._bridges and self.policy.every == 1)

    def _why(self, step: int) -> str:
        if self.policy.is_at(step):
            return "steps"
        if self._bridges and self.policy.is_halfway(step):
            return "halfway"
        if self.surface is None or self.policy.minutes is None:
            return ""
        passed = (self._clock() - self._began) / (60 * self.policy.minutes)
        if not self._bridges:
            return "minutes" if passed >= 1 else ""
        # Every other one stays, so that those which stay are as far apart as was said.
        return ("minutes" if self._is_half else "halfway") if passed >= 0.5 else ""

    def _snapshot(self) -> Callable[[Path], None] | None:
        return self.surface.snapshot() if isinstance(self.surface, Snapshotting) else None

    def _submit(self, work: Callable[[], T]) -> Future[T]:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="clew-saver")
        return self._thread.submit(work)

    def _beside(self, step: int, write: Callable[[Path], None], metric: float | None, why: str) -> None:
        """Save in another thread; what goes wrong is noted at once, and kept for the training."""
        try:
            self._commit(step, write, metric, why)
        except BaseException as error:
            self._failure = (step, error)
            self._tell()
            self._log.error(f"the checkpoint of step {step} could not be saved: {error}", step=step)
            with suppress(OSError):  # the disk may be full
                self._journal.write("checkpoint_failed", at=step, error=type(error).__name__, reason=str(error))
                self._journal.flush()

    def _commit(self, step: int, write: Callable[[Path], None], metric: float | None, why: str = "") -> Checkpoint:
        """Write a checkpoint; only when it is durable, it is told of, and others are deleted.

        What was logged up to it comes first: an attempt that goes on from it does not log that again.
        """
        self._journal.flush(sync=True)
        checkpoint = self.store.save(step, write, metric=metric)
        self.saved_step = step
        more = {"due": why} if why in ("minutes", "halfway") else {}  # no step tells that afterwards
        self._journal.write("checkpoint", step=step, path=f"checkpoints/{checkpoint.path.name}", metric=metric, **more)
        self._journal.flush(sync=True)
        self._log.info("checkpoint saved", step=step)
        policy, passing = self.policy, self._halfway
        gone = self.store.prune(policy.keep_last, keep_every=policy.keep_every, saved=step, passing=passing)
        self._halfway.difference_update(gone)
        return checkpoint


def _same(one: Known, other: Known) -> bool:
    return all((one.get(name) or None) == (other.get(name) or None) for name in {*one, *other})


def kept_with(checkpoint: Checkpoint) -> Known:
    """Return what the session has kept with a state: settings in force, and commands of its step that it contains."""
    kept: Known = read_json(checkpoint.path / _STATE) if (checkpoint.path / _STATE).is_file() else {}
    return kept


def _write(state: Callable[[Path], None], known: Known, directory: Path) -> None:
    """Write the trainer's state, and what the session has to keep with it."""
    state(directory)
    if any(known.values()):
        write_json(directory / _STATE, dict(known))
