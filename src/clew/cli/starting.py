"""What the verbs that start something, or go on with it, have in common."""

from __future__ import annotations

from clew.errors import UserError
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


def no_stages(name: str) -> UserError:
    """The error about stages of a single job."""
    return UserError("a single job has no stages", where=name, hint="--from-stage is for pipelines")
