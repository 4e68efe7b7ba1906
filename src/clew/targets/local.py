"""The target ``local``: a worker process on this machine, which outlives whoever started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from clew.errors import RunFailed
from clew.runs import ACTIVE, FINAL, Failure, Fenced, IllegalMove, JobResult, Run, State
from clew.runs.result import log_tail

CLAIM_SECONDS = 120.0
_POLL_SECONDS = 0.02


class LocalWorker:
    """A worker process of this machine.

    Args:
        run: The run it works on.
        attempt: The attempt it was started for.
        process: Its handle; None for an adopted worker, which is no child of ours.
    """

    def __init__(self, run: Run, attempt: int, process: subprocess.Popen[bytes] | None = None) -> None:
        self.run = run
        self._attempt = attempt
        self._process = process

    def poll(self) -> State:
        """Return the run's state; record a death that the worker could not record itself."""
        code = self._process.poll() if self._process else None
        state = self.run.state
        if self._process and code is None and state in FINAL:
            # It has said its last word and is on its way out: reap it.
            code = self._process.wait(timeout=CLAIM_SECONDS)
        if code is None:
            return state if state is not State.INTERRUPTED else self._record_death("the worker is gone")
        if self.run.states.read().state in ACTIVE:
            return self._record_death(_describe(code), signal.Signals(-code).name if code < 0 else None)
        return state

    def _record_death(self, reason: str, by: str | None = None) -> State:
        """Write the state and a result for a worker that was killed, unless somebody else has gone on already."""
        run = self.run
        if run.states.read().state not in ACTIVE:
            return run.state
        ended = State.FAILED if run.states.read().state is State.STARTING else State.INTERRUPTED
        failure = Failure("killed", reason, log_tail(run.log_path(self._attempt)), signal=by)
        try:
            run.states.check(self._attempt)
            JobResult(run.id, run.info.job, ended.value, run.busy_seconds(), self._attempt, failure=failure).save(
                run.path
            )
            run.states.move(ended, attempt=self._attempt, reason=reason)
        except (Fenced, IllegalMove):
            return run.state
        return ended


class LocalTarget:
    """Starts workers as processes of this machine."""

    def launch(self, run: Run) -> LocalWorker:
        """Start the next attempt at ``run``, or adopt the worker that is alive.

        Raises:
            IllegalMove: If the run has completed.
            RunFailed: If the process ends before it takes the run.
        """
        now = run.states.read()
        if run.state in ACTIVE:
            return LocalWorker(run, now.attempt)
        attempt = run.states.queue()
        run.states.move(State.STARTING, attempt=attempt)
        worker = LocalWorker(run, attempt, _start(run, attempt))
        _await_claim(worker, attempt)
        return worker


def _start(run: Run, attempt: int) -> subprocess.Popen[bytes]:
    with run.log_path(attempt).open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "clew.worker", str(run.path), str(attempt)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that Ctrl-C in a terminal asks the run to stop instead of killing it
            env={**os.environ, "PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false", "TQDM_DISABLE": "1"},
        )


def _await_claim(worker: LocalWorker, attempt: int) -> None:
    """Return when the worker has taken the run over: from then on it does not need us."""
    deadline = time.monotonic() + CLAIM_SECONDS
    while worker.run.states.read().state is State.STARTING:
        if worker.poll() is State.FAILED and _was_killed(worker.run):
            last = log_tail(worker.run.log_path(attempt), 3)
            raise RunFailed("the worker ended before it took the run", where=worker.run.id, hint=" | ".join(last) or "")
        if time.monotonic() > deadline:
            raise RunFailed(f"the worker did not take the run within {CLAIM_SECONDS:.0f} s", where=worker.run.id)
        time.sleep(_POLL_SECONDS)


def _was_killed(run: Run) -> bool:
    """Tell a worker that never took the run from a job that failed between two looks at it."""
    result = run.result
    return result is not None and result.failure is not None and result.failure.kind == "killed"


def _describe(code: int) -> str:
    """Say how a process ended."""
    if code >= 0:
        return f"the worker ended with exit code {code} without a result"
    name = signal.Signals(-code).name
    advice = " (by hand, or because memory ran out)" if -code == signal.SIGKILL else ""
    return f"the worker was killed by {name}{advice}"
