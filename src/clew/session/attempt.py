"""One attempt at a run, from its claim to its last word, wherever it happens: in a worker, or in a script.

Every way in which it can end becomes a state and a ``result.json``.
"""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, TypeVar

from clew.errors import ClewError, UserError, missing_library
from clew.logs.logger import Logger
from clew.logs.piping import Printed
from clew.logs.redaction import Redactor
from clew.runs import Artifact, Failure, Fenced, JobResult, JournalWriter, Owner, Run, State
from clew.runs.disk import Reserve, explained
from clew.runs.environment import environment
from clew.runs.following import tracker_places
from clew.runs.result import LOG_TAIL_LINES, log_tail
from clew.session.lifecycle import Fetched, Lifecycle
from clew.session.session import Session
from clew.session.surface import Outcome, RunStopped

ConfigT = TypeVar("ConfigT")

Copies = Callable[[Run, int, Mapping[int, int]], Fetched | None]
"""``copies(run, attempt, steps)`` does what :meth:`Lifecycle.fetch` says."""

EXIT_CODES = {State.COMPLETED: 0, State.FAILED: 1, State.STOPPED: 3, State.INTERRUPTED: 4}
REPLACED = 5
"""Exit code of a process whose attempt is not its own, or no longer."""


@dataclass(frozen=True)
class End:
    """How an attempt has ended."""

    state: State
    outcome: Outcome = field(default_factory=Outcome)
    failure: Failure | None = None


class RankLost(Exception):
    """Another process of a run of several ranks is gone, which ends the attempt.

    Args:
        end: How.
    """

    def __init__(self, end: End) -> None:
        super().__init__(end.failure.reason if end.failure else end.state.value)
        self.end = end


class Attempt(Lifecycle):
    """Surrounds the work of one attempt, once it is claimed.

    Leaving writes the result and then the state, so that who sees the state can
    rely on the result; both of the run in which the session is at that time, which may have gone on as a fork of the
    one that it began with. An exception that says how the attempt ended is kept and not passed on: :attr:`error`.

    Args:
        run: The run.
        number: Of the attempt.
        fingerprints: Says what the files were that a run's config names: config key to hash.
        printed: Knows when all that was printed is in the log; None when there is no filter before it.
        tells: Whether to log what went wrong; not where it is passed on to whoever shows it.
        copies: Fetches checkpoints from where their copies are; None where nobody does.

    Attributes:
        opened: Makes the session.
        outcome: What came of it, if it completes.
        end: How it ended; None before.
        error: What ended it, when that was an exception.
    """

    def __init__(
        self,
        run: Run,
        number: int,
        fingerprints: Callable[[Run], Mapping[str, Any]],
        printed: Printed | None = None,
        *,
        tells: bool = True,
        copies: Copies | None = None,
    ) -> None:
        self.outcome = Outcome()
        self.end: End | None = None
        self.error: BaseException | None = None
        self.log = Logger("clew.worker", run=run.id, attempt=number)
        self._run = run
        self._number = number
        self._fingerprints = fingerprints
        self._printed = printed or Printed()
        self._tells = tells
        self._copies = copies
        self.opened: Callable[..., Session[Any]] = Session
        self._reserve = Reserve(run.path)
        self._session: Session[Any] | None = None
        self._follow: Callable[[Run, int], None] = lambda run, number: None
        self._began = 0.0

    def claim(self) -> None:
        """Let the attempt be that of this process; to be called first.

        Raises:
            Fenced: If another one has replaced it.
            IllegalMove: If the run cannot begin.
        """
        self._run.states.move(State.RUNNING, attempt=self._number, owner=Owner.current())
        self._began = time.monotonic()
        self.log.info("attempt started", job=self._run.info.job, pid=os.getpid())
        self._reserve.take()

    def __enter__(self) -> Attempt:
        return self

    def announce(self) -> None:
        """Say in the journal that the attempt has begun, and on what."""
        _announce(self._run, self._number)

    @contextmanager
    def session(self, config: ConfigT, follow: Callable[[Run, int, ConfigT], None]) -> Iterator[Session[ConfigT]]:
        """Open the session in which the work is done; what goes wrong in it stands in its journal.

        Args:
            config: The job's hydrated config.
            follow: ``follow(run, attempt, config)`` starts what follows an attempt.
        """
        self._follow = lambda run, number: follow(run, number, config)
        self._follow(self._run, self._number)
        with self.opened(self._run, config, self._number, self) as session:
            self._session = session
            try:
                yield session
            except Exception as error:
                session.event("failure", error=type(error).__name__, reason=reason_of(error))
                raise

    def left(self, run: Run, attempt: int, successor: str, step: int, artifacts: Mapping[str, Artifact]) -> None:
        """Write the result of a run as which the process does not go on; see :class:`Lifecycle`."""
        failure = Failure(State.STOPPED.value, f"this process goes on as {successor} from step {step}")
        self._write_result(run, attempt, End(State.STOPPED, failure=failure), artifacts)
        super().left(run, attempt, successor, step, artifacts)

    def entered(self, run: Run, attempt: int) -> None:
        """Begin a run as which the process goes on; see :class:`Lifecycle`."""
        _announce(run, attempt)
        self._follow(run, attempt)

    def fetch(self, run: Run, attempt: int, steps: Mapping[int, int]) -> Fetched | None:
        """Bring back a checkpoint from where its copies are; see :class:`Lifecycle`."""
        return None if self._copies is None else self._copies(run, attempt, steps)

    @property
    def exit_code(self) -> int:
        """What a process returns whose work this was."""
        return REPLACED if self.end is None else EXIT_CODES[self.end.state]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self.error = error
        try:
            end = self._judged(error)
            if end is None:
                return False
            seconds = round(time.monotonic() - self._began, 3)
            self.log.info("attempt ended", state=end.state.value, seconds=seconds)
            self._printed.wait()
            self._reserve.give_up()
            self._finish(end)
            self.end = end
        except Fenced as fenced:
            self.error = fenced
            if self._tells:
                self.log.error(fenced)
        return True

    def _judged(self, error: BaseException | None) -> End | None:
        """Say how the work has ended; None when nobody shall take it for an end, such as when a generator is closed."""
        if error is None:
            return End(State.COMPLETED, self.outcome)
        if isinstance(error, RunStopped):
            failure = Failure(error.state.value, f"{error.reason} at step {error.step}")
            return End(error.state, failure=failure)
        if isinstance(error, KeyboardInterrupt):
            return End(State.INTERRUPTED, failure=Failure("interrupted", "interrupted before it could save"))
        if isinstance(error, Fenced):
            raise error
        if isinstance(error, RankLost):
            self.log.error(str(error))
            return error.end
        return End(State.FAILED, failure=self._failure(error)) if isinstance(error, Exception) else None

    def _failure(self, raised: Exception) -> Failure:
        """Put the cause into the log, and into words."""
        error = missing_library(raised) or raised
        if self._tells and isinstance(error, ClewError):
            self.log.error(error)
        elif self._tells:
            self.log.error("the job failed", error=error)
        self._printed.wait()
        tail = log_tail(self._run.log_path(self._number))
        return Failure(
            type(error).__name__,
            reason_of(error),
            tail or _trace(raised),
            out_of_memory=isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError",
            lasting=isinstance(error, UserError),
        )

    def _finish(self, end: End) -> None:
        """Write ``result.json``, then the final state, of the run as which the attempt has ended."""
        session = self._session
        run, number = (self._run, self._number) if session is None else (session.run, session.attempt)
        self._write_result(run, number, end, {} if session is None else session.artifacts)
        run.states.move(end.state, attempt=number, reason=end.failure.reason if end.failure else "")

    def _write_result(self, run: Run, number: int, end: End, artifacts: Mapping[str, Artifact]) -> None:
        result = JobResult(
            run=run.id,
            job=run.info.job,
            status=end.state.value,
            seconds=run.busy_seconds(),
            attempts=number,
            metrics=end.outcome.metrics,
            intervals=end.outcome.intervals,
            artifacts=dict(artifacts),
            notes=end.outcome.notes,
            failure=end.failure,
            environment={**environment(), "data": dict(self._fingerprints(run))},
            target=run.info.target,
            trackers=tracker_places(run.path),
            directory=str(run.path),
        )
        with run.states.holding(number):
            result.save(run.path)


def _announce(run: Run, number: int) -> None:
    journal = JournalWriter(run.path / "journal", number)
    journal.write("attempt", number=number, environment=environment())
    journal.close()


def reason_of(error: Exception) -> str:
    """Say why on one line; it goes into the journal, the state and the result."""
    text = error.one_line() if isinstance(error, ClewError) else str(error)
    return Redactor.of().text(explained(error, text))


def _trace(error: Exception) -> list[str]:
    """The end of a traceback, for a process that has no log."""
    return "".join(traceback.format_exception(error)).splitlines()[-LOG_TAIL_LINES:]
