"""A script that is its own launcher and its own worker: ``python train.py`` with a session in it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clew import api
from clew.config import Origin, dump, section_of
from clew.errors import UserError
from clew.followers.starting import start as start_followers
from clew.jobs import LoadedJob, data_fingerprints, load_job
from clew.jobs.environment import check_environment
from clew.live.script import Request, failed_exit, newest_metrics
from clew.remote.mirror import bring_back
from clew.runs import ACTIVE, IllegalMove, Run, State, Workspace
from clew.runs.ids import check_spelling
from clew.session import Outcome, Session
from clew.session.attempt import Attempt


@contextmanager
def standalone(request: Request) -> Iterator[Session[Any]]:
    """Make the run that a script asks for, or find it again, and let the body be its next attempt.

    Args:
        request: What is asked for.

    Yields:
        The session.

    Raises:
        SystemExit: When the run has completed already, or was stopped: a script ends there, without a word of Python.
        UserError: If the name is that of another run, or the run is at work elsewhere.
    """
    workspace = Workspace(request.workspace)
    loaded = _loaded(request, workspace)
    run = api.submit(loaded, workspace=workspace)
    typed = request.origin.script is None
    _check_ready(run, typed=typed)
    attempt = _claimed(run)
    _say_where(run)
    leaving: SystemExit | None = None
    with attempt:
        attempt.announce()
        with attempt.session(loaded.config, start_followers) as session:
            try:
                yield session
            except SystemExit as error:
                leaving = error
                if (failed := failed_exit(error)) is not None:
                    raise failed from error
            attempt.outcome = Outcome(metrics=newest_metrics(session))
    _leave(attempt, session.run, leaving, typed=typed)


def _loaded(request: Request, workspace: Workspace) -> LoadedJob:
    """The config of the job ``script``, with what the workspace says of it."""
    origin = request.origin
    check_environment(workspace.environment)
    check_spelling(request.name, "the session's name")
    said = {
        "job": "script",
        "name": request.name,
        "notes": request.notes,
        "seed": request.seed,
        "script": None if origin.script is None else str(origin.script),
        "module": origin.module,
        "argv": list(origin.argv),
        "folder": origin.folder,
        "params": dict(request.params),
        "track": [dict(tracker) for tracker in request.track],
        "push": None if request.push is None else dict(request.push),
        "checkpoint": dump(request.checkpoint),
        "live": dump(request.live),
    }
    return load_job(section_of(said, Origin("file", "the session", Path.cwd())), environment=workspace.environment)


def _check_ready(run: Run, *, typed: bool) -> None:
    """Go no further with a run that has completed, or that somebody else works on."""
    state = run.state
    if state is State.UNKNOWN:
        raise api.elsewhere(run.id)
    if state in ACTIVE:
        owner = run.states.read().owner
        by = f", in process {owner.pid}" if owner is not None and owner.pid != os.getpid() else ""
        hint = f"clew watch {run.id} shows it; clew stop {run.id} ends it"
        raise UserError(f"the run is {state} already{by}", where=run.id, hint=hint)
    if state is State.COMPLETED:
        said = "it has completed already, with the same parameters and code"
        hint = f"clew show {run.id} shows what came of it; choose another name for a new run"
        if typed:
            raise UserError(said, where=run.id, hint=hint)
        print(f"{run.id}: {said}\n  {hint}", file=sys.stderr)
        raise SystemExit(0)


def _claimed(run: Run) -> Attempt:
    """Open the next attempt, and let it be this process's."""
    try:
        run.make_folders()
        number = run.states.queue()
        run.states.move(State.STARTING, attempt=number)
        attempt = Attempt(run, number, data_fingerprints, tells=False, copies=bring_back)
        attempt.claim()
    except IllegalMove as error:
        raise api.started_elsewhere(run.id) from error
    return attempt


def _say_where(run: Run) -> None:
    """Where the run is, and how somebody gets at it: a script says nothing of that itself."""
    print(f"{run.id}: started, attempt {run.states.read().attempt} ({run.path})", file=sys.stderr)
    print(f"  clew watch {run.id} shows it, from another terminal", file=sys.stderr)


def _leave(attempt: Attempt, run: Run, leaving: SystemExit | None, *, typed: bool) -> None:
    """Say how the run ended, where that is no matter of exceptions, and leave a script that must not go on."""
    end = attempt.end
    if end is None or end.state is State.FAILED or (typed and isinstance(attempt.error, KeyboardInterrupt)):
        assert attempt.error is not None, "what has not ended well has a reason"
        raise leaving or attempt.error
    if end.state is not State.COMPLETED and end.failure is not None:
        again = f"clew resume {run.id} goes on with it" if not typed else "open the session again to go on with it"
        print(f"{run.id}: {end.state}, {end.failure.reason}\n  {again}", file=sys.stderr)
        if not typed:
            raise SystemExit(attempt.exit_code)
    if leaving is not None:
        raise leaving
