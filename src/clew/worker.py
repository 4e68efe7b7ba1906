"""The worker: the process in which a run happens. ``python -m clew.worker RUN_DIRECTORY ATTEMPT [DESCRIPTOR]``.

It claims its attempt, loads the config, runs the job, and writes what came of it. A worker whose attempt was replaced
before it could claim it leaves without touching anything.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clew.errors import ClewError, missing_library
from clew.followers.starting import start as start_followers
from clew.jobs import data_fingerprints, load_run_config, resolve_job
from clew.logs.logger import Logger
from clew.logs.piping import Printed
from clew.logs.redaction import Redactor
from clew.logs.settings import LogSettings
from clew.logs.setup import configure_worker
from clew.logs.streams import outlast_readers
from clew.runs import Failure, Fenced, IllegalMove, JobResult, JournalWriter, Owner, Run, State
from clew.runs.disk import Reserve, explained
from clew.runs.environment import environment
from clew.runs.following import tracker_places
from clew.runs.result import log_tail
from clew.session import Outcome, RunStopped, Session

EXIT_CODES = {State.COMPLETED: 0, State.FAILED: 1, State.STOPPED: 3, State.INTERRUPTED: 4}


def main(arguments: list[str]) -> int:
    """Work on one attempt at one run and return the exit code."""
    outlast_readers()
    configure_worker(LogSettings.choose())
    folder, attempt = Path(arguments[0]), int(arguments[1])
    return work(Run(folder), attempt, Printed(int(arguments[2]) if len(arguments) > 2 else None))


def work(run: Run, attempt: int, printed: Printed | None = None) -> int:
    """Claim ``attempt`` of ``run``, carry the job out, and record the outcome.

    Args:
        run: The run.
        attempt: The attempt at it that this process was started for.
        printed: Knows when all that was printed is in the log; None when there is no filter before it.

    Returns:
        0 when the run completed, 1 when it failed, 3 when it was stopped, 4 when it was interrupted, 5 when the
        attempt was not this worker's to claim.
    """
    printed, log = printed or Printed(), Logger("clew.worker", run=run.id, attempt=attempt)
    try:
        run.states.move(State.RUNNING, attempt=attempt, owner=Owner.current())
    except (Fenced, IllegalMove) as error:
        log.error(error)
        return 5
    began, reserve = time.monotonic(), Reserve(run.path)
    log.info("attempt started", job=run.info.job, pid=os.getpid())
    try:
        reserve.take()
        state, outcome, artifacts, failure = _attempt(run, attempt, log, printed)
        log.info("attempt ended", state=state.value, seconds=round(time.monotonic() - began, 3))
        printed.wait()
        reserve.give_up()
        _finish(run, attempt, state, outcome, artifacts, failure)
    except Fenced as error:
        log.error(error)
        return 5
    return EXIT_CODES[state]


def _attempt(
    run: Run, attempt: int, log: Logger, printed: Printed
) -> tuple[State, Outcome, dict[str, Any], Failure | None]:
    """Run the job in a session; turn every way in which that can end into a state."""
    artifacts: dict[str, Any] = {}
    try:
        journal = JournalWriter(run.path / "journal", attempt)
        journal.write("attempt", number=attempt, environment=environment())
        journal.close()
        job = resolve_job(run.info.job)
        config = load_run_config(run)
        log.debug("job loaded", config_hash=run.info.config_hash)
        start_followers(run, attempt, config)
        with Session(run, config, attempt) as session:
            artifacts = session.artifacts
            outcome = _guarded(session, lambda: job.run(session))
        return State.COMPLETED, outcome, artifacts, None
    except RunStopped as stop:
        return stop.state, Outcome(), artifacts, Failure(stop.state.value, f"{stop.reason} at step {stop.step}")
    except KeyboardInterrupt:
        return State.INTERRUPTED, Outcome(), artifacts, Failure("interrupted", "interrupted before it could save")
    except Fenced:
        raise
    except Exception as raised:
        error = missing_library(raised) or raised
        _log_failure(log, error)
        printed.wait()
        failure = Failure(
            type(error).__name__,
            _reason(error),
            log_tail(run.log_path(attempt)),
            out_of_memory=isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError",
        )
        return State.FAILED, Outcome(), artifacts, failure


def _guarded(session: Session[Any], body: Callable[[], Outcome]) -> Outcome:
    """Record a failure in the journal on its way out."""
    try:
        return body()
    except Exception as error:
        session.event("failure", error=type(error).__name__, reason=_reason(error))
        raise


def _reason(error: Exception) -> str:
    """Say why on one line; it goes into the journal, the state and the result."""
    text = error.one_line() if isinstance(error, ClewError) else str(error)
    return Redactor.of().text(explained(error, text))


def _log_failure(log: Logger, error: Exception) -> None:
    """Put the cause into the log: what is wrong for errors with an audience, a traceback for all others."""
    if isinstance(error, ClewError):
        log.error(error)
    else:
        log.error("the job failed", error=error)


def _finish(
    run: Run, attempt: int, state: State, outcome: Outcome, artifacts: dict[str, Any], failure: Failure | None
) -> None:
    """Write ``result.json``, then the final state: who sees the state can rely on the result."""
    run.states.check(attempt)
    result = JobResult(
        run=run.id,
        job=run.info.job,
        status=state.value,
        seconds=run.busy_seconds(),
        attempts=attempt,
        metrics=outcome.metrics,
        intervals=outcome.intervals,
        artifacts=artifacts,
        notes=outcome.notes,
        failure=failure,
        environment={**environment(), "data": data_fingerprints(run)},
        target=run.info.target,
        trackers=tracker_places(run.path),
        directory=str(run.path),
    )
    result.save(run.path)
    run.states.move(state, attempt=attempt, reason=failure.reason if failure else "")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
