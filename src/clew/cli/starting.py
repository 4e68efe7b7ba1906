"""What the verbs that start something, or go on with it, have in common."""

from __future__ import annotations

import json
import shlex

from clew.config import diff, plain, unhashed_keys
from clew.config.problems import show
from clew.config.source import read_file
from clew.errors import UserError
from clew.jobs import LoadedJob
from clew.notify import Notifier, open_notifier, workspace_notify
from clew.runs import JobResult, Run, State, Workspace


def notifier_of(workspace: Workspace) -> Notifier:
    """Who is told of a single run is said by the workspace; a pipeline tells for itself."""
    return open_notifier(workspace_notify(workspace.environment), root=workspace.root)


def tell_end(notifier: Notifier, result: JobResult) -> None:
    """Tell whoever is to be told that a single run is over."""
    facts = {"run": result.run, "job": result.job, "state": result.status}
    reason = {"reason": result.failure.cause} if result.failure else {}
    if result.status in (State.FAILED, State.INTERRUPTED):
        notifier.tell("failure", **facts, **reason)
    notifier.tell("completion", **facts, **reason)


def say_it_runs(run: Run, detach: bool) -> None:
    """Say that a run is alive."""
    doing = "paused, and clew resume lets it go on" if run.state is State.PAUSED else "running already"
    print(f"{run.id} is {doing}, attempt {run.states.read().attempt}{'' if detach else '; following it'}")


def say_what_stays(run: Run, work: LoadedJob) -> None:
    """Say which of the values that were given do not hold: a run that is there goes on as its own config says.

    Args:
        run: A run that has not completed, and is the one that is asked for.
        work: What is asked for; what cannot change results may differ in it.
    """
    free, origins = unhashed_keys(work.config), work.loaded.origins
    said = []
    for key, (stands, given) in diff(plain(read_file(run.config_path)), work.plain).items():
        is_free = any(key == one or key.startswith(f"{one}.") for one in free)
        if is_free and key in origins and origins[key].origin.layer != "default":
            print(f"{run.id}: {key} stays {show(stands)}, though {show(given)} is said now")
            said.append(f"{key}={given if isinstance(given, str) else json.dumps(given)}")
    if said:
        print(f"  clew stop {run.id}, then clew resume {run.id} {shlex.join(said)} goes on so")


def no_stages(name: str) -> UserError:
    """The error about stages of a single job."""
    return UserError("a single job has no stages", where=name, hint="--from-stage is for pipelines")
