"""The target ``local``: a worker process on this machine, which outlives whoever started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from contextlib import suppress
from pathlib import Path

from clew.config.source import read_file
from clew.config.tree import plain
from clew.errors import ConfigError, RunFailed
from clew.logs.logger import Logger
from clew.logs.piping import log_pipe, wait_for_end
from clew.logs.secrets import VARIABLE, named_in
from clew.logs.setup import present
from clew.runs import ACTIVE, FINAL, Failure, Fenced, IllegalMove, JobResult, Run, State
from clew.runs.disk import Reserve, is_full
from clew.runs.result import log_tail

CLAIM_SECONDS = 120.0
_POLL_SECONDS = 0.02
_LOG_SECONDS = 2.0
"""How long the end of a log is waited for."""


class LocalWorker:
    """A worker process of this machine.

    Args:
        run: The run it works on.
        attempt: The attempt it was started for.
        process: Its handle; None for an adopted worker, which is no child of ours.
        log: The filter through which it prints; None for an adopted worker.
    """

    def __init__(
        self,
        run: Run,
        attempt: int,
        process: subprocess.Popen[bytes] | None = None,
        log: subprocess.Popen[bytes] | None = None,
    ) -> None:
        self.run = run
        self._attempt = attempt
        self._process = process
        self._log = log

    def poll(self) -> State:
        """Return the run's state; record a death that the worker could not record itself."""
        code = self._process.poll() if self._process else None
        state = self.run.state
        if self._has_gone_on():
            return self._reaped(code, state)
        if self._process and code is None and state in FINAL:
            # It has said its last word and is on its way out: reap it.
            code = self._process.wait(timeout=CLAIM_SECONDS)
        self._reaped(code, state)
        if code is None:
            return state if state is not State.INTERRUPTED else self._record_death("the worker is gone")
        if self.run.states.read().state in ACTIVE:
            return self._record_death(_describe(code), signal.Signals(-code).name if code < 0 else None)
        return state

    @property
    def is_adopted(self) -> bool:
        """Whether somebody else has started it."""
        return self._process is None

    @property
    def is_gone(self) -> bool:
        """Whether the process itself has ended, as far as it is a child of this one."""
        return self._process is None or self._process.returncode is not None

    def _has_gone_on(self) -> bool:
        """Whether the process works on as another run, after a ``fork --switch``; then its end is not this run's."""
        now = self.run.states.read()
        return bool(now.successor) and now.state in FINAL and now.attempt == self._attempt

    def _reaped(self, code: int | None, state: State) -> State:
        """Let the filter of a worker that has ended end, too; and return the state."""
        if self._log and code is not None:
            # What the worker has left running and may still print must not hold us up.
            with suppress(subprocess.TimeoutExpired):
                self._log.wait(timeout=_LOG_SECONDS)
            self._log = None
        return state

    def _record_death(self, reason: str, by: str | None = None) -> State:
        """Write the state and a result for a worker that was killed, unless somebody else has gone on already."""
        run = self.run
        if run.states.read().state not in ACTIVE:
            return run.state
        ended = State.FAILED if run.states.read().state is State.STARTING else State.INTERRUPTED
        wait_for_end(run.log_path(self._attempt), _LOG_SECONDS)
        failure = Failure("killed", reason, log_tail(run.log_path(self._attempt)), signal=by)
        Reserve(run.path).give_up()
        try:
            run.states.check(self._attempt)
            JobResult(run.id, run.info.job, ended.value, run.busy_seconds(), self._attempt, failure=failure).save(
                run.path
            )
            run.states.move(ended, attempt=self._attempt, reason=reason)
        except (Fenced, IllegalMove):
            return run.state
        except OSError as error:  # whoever looks sees that the owner is gone, and the run can be gone on with
            text = "the disk is full" if is_full(error) else str(error)
            Logger("clew.targets", run=run.id).warning(f"the end of {run.id} cannot be written: {text}")
            return run.state
        return ended


class LocalTarget:
    """Starts workers as processes of this machine.

    Args:
        secrets: Names of environment variables that hold a secret, besides those that a run's own config and the
            workspace name in fields ``*_env``, and those whose names tell it.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._secrets = frozenset(secrets)

    def launch(self, run: Run) -> LocalWorker:
        """Start the next attempt at ``run``, or adopt the worker that is alive.

        Raises:
            IllegalMove: If the run has completed.
            RunFailed: If the process ends before it takes the run.
        """
        now = run.states.read()
        if run.state in ACTIVE:
            return LocalWorker(run, now.attempt)
        run.make_folders()
        attempt = run.states.queue()
        run.states.move(State.STARTING, attempt=attempt)
        worker = _start(run, attempt, self._secrets)
        _await_claim(worker, attempt)
        return worker


def _start(run: Run, attempt: int, secrets: AbstractSet[str]) -> LocalWorker:
    environment = _environment(run, secrets)
    log = run.log_path(attempt)
    with log_pipe(log, environment) as pipe:
        process = subprocess.Popen(
            [sys.executable, "-m", "clew.worker", str(run.path), str(attempt), str(pipe.answers)],
            stdin=subprocess.DEVNULL,
            stdout=pipe.into,
            stderr=subprocess.STDOUT,
            pass_fds=(pipe.answers,),
            start_new_session=True,  # so that Ctrl-C in a terminal asks the run to stop instead of killing it
            env=environment,
        )
        Logger("clew.targets", run=run.id, attempt=attempt).debug("worker started", pid=process.pid, log=log)
        return LocalWorker(run, attempt, process, pipe.filter)


def _environment(run: Run, secrets: AbstractSet[str]) -> dict[str, str]:
    """The environment of a worker and of the filter of its log; it also says which variables hold secrets."""
    listed = {name for name in os.environ.get(VARIABLE, "").split(",") if name}
    named = listed.union(secrets, *map(_secrets_named_in, (run.config_path, run.path.parents[1] / "clew.yaml")))
    return {
        "HF_HUB_DISABLE_TELEMETRY": "1",  # libraries must not tell anybody of a run, unless the user lets them
        **os.environ,
        **present().environment(),
        **({VARIABLE: ",".join(sorted(named))} if named else {}),
        "PYTHONUNBUFFERED": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TQDM_DISABLE": "1",
    }


def _secrets_named_in(config: Path) -> set[str]:
    try:
        return named_in(plain(read_file(config)))
    except ConfigError:
        return set()  # there is none, or the worker says what is the matter with it


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
