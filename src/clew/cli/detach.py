"""``--detach``: what is started goes on by itself.

A run's worker is a process of its own anyway. A pipeline needs somebody who starts one stage after the other: a process
of this module, ``python -m clew.cli.detach WORKSPACE PIPELINE``, whose words go to ``orchestrator.log``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from clew import api
from clew.cli.attendant import TerminalAttendant
from clew.cli.displays import Lines, Quiet
from clew.cli.interrupt import Interrupt
from clew.cli.outcome import conclude_plan
from clew.cli.progress import ProgressWatcher
from clew.errors import ClewError, RunFailed
from clew.logs.logger import Logger
from clew.logs.piping import log_pipe, wait_for_end
from clew.logs.settings import LogSettings
from clew.logs.setup import configure_terminal, present
from clew.logs.streams import outlast_readers
from clew.plans import Plan
from clew.runs import Run, Workspace
from clew.runs.result import log_tail
from clew.targets import target_of

_CLAIM_SECONDS = 60.0
_POLL_SECONDS = 0.05


def detach_run(run: Run) -> int:
    """Start a run's worker and say how to get at it; of several callers at the same time one has started it."""
    worker = target_of(run).launch(run)
    attempt = run.states.read().attempt
    if worker.is_adopted:
        print(f"{run.id} is running already, attempt {attempt}")
        return 0
    print(f"{run.id}: started, attempt {attempt}")
    print(f"  clew logs -f {run.id} follows its output, clew resume {run.id} its progress; clew stop {run.id} ends it")
    return 0


def detach_plan(plan: Plan, workspace: Workspace) -> int:
    """Start a process that carries a pipeline out, and return when it has taken it over.

    Raises:
        RunFailed: If that process ends before.
    """
    before = plan.states.read().attempt
    environment = {**os.environ, **present().environment(), "PYTHONUNBUFFERED": "1"}
    with log_pipe(log_path(plan), environment) as pipe:
        process = subprocess.Popen(
            [sys.executable, "-m", "clew.cli.detach", str(workspace.root), plan.id],
            stdin=subprocess.DEVNULL,
            stdout=pipe.into,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=environment,
        )
    deadline = time.monotonic() + _CLAIM_SECONDS
    while plan.states.read().attempt == before:
        if process.poll() is not None or time.monotonic() > deadline:
            wait_for_end(log_path(plan))
            raise RunFailed("the pipeline did not start", where=plan.id, hint=" | ".join(log_tail(log_path(plan), 3)))
        time.sleep(_POLL_SECONDS)
    print(f"{plan.id}: started (its words go to {log_path(plan)})")
    print(f"  clew show {plan.id} shows how far it is, clew resume {plan.id} follows it; clew stop {plan.id} ends it")
    return 0


def log_path(plan: Plan) -> Path:
    """Return the file that holds what the detached processes of a pipeline have said."""
    return plan.path / "orchestrator.log"


def orchestrate(workspace: Workspace, name: str) -> int:
    """Carry out the pipeline that was prepared under a name."""
    outlast_readers()
    configure_terminal(LogSettings.choose())
    plan = Plan(workspace.plans / name)
    watcher = ProgressWatcher(Quiet() if present().level == "quiet" else Lines(), Interrupt())
    attendant = TerminalAttendant(watcher)
    try:
        result = api.attend_plan(plan, workspace=workspace, watcher=watcher, attendant=attendant)
        return conclude_plan(plan, workspace, result)
    except ClewError as error:
        Logger("clew.cli").error(error)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(orchestrate(Workspace(sys.argv[1]), sys.argv[2]))
