"""``clew run`` and ``clew resume``: start something, or go on with it, and wait for its end."""

from __future__ import annotations

import sys
from argparse import Namespace
from typing import TYPE_CHECKING

from clew import api
from clew.cli.attendant import TerminalAttendant
from clew.cli.configs import describe_job, describe_pipeline
from clew.cli.detach import detach_plan, detach_run
from clew.cli.finding import find, workspace_of
from clew.cli.outcome import conclude, conclude_plan
from clew.cli.progress import watching
from clew.config import to_yaml
from clew.errors import UserError
from clew.jobs import LoadedJob
from clew.jobs.layout import choose
from clew.notify import Notifier, TellingWatcher, open_notifier, workspace_notify
from clew.plans import CHOICES, Pipeline, Plan, start_from
from clew.runs import ACTIVE, RESUMABLE, IllegalMove, JobResult, Run, State, Workspace
from clew.session.live import LiveRun
from clew.sources import resolved

if TYPE_CHECKING:
    from clew.cli.parser import Parser


def configure(parser: Parser, verb: str) -> None:
    """Add the arguments of a verb."""
    if verb == "run":
        parser.add_argument("file", metavar="FILE", help="the config of a job or a pipeline")
        parser.add_argument(
            "overrides", nargs="*", default=[], metavar="key=value", help="values over those of the file"
        )
        parser.add_argument("--name", default="", help="name of the run or the pipeline")
        parser.add_argument(
            "--from", dest="below", default="", metavar="RUN|FILE", help="lay the config of another run or file below"
        )
        parser.add_argument("--dry-run", action="store_true", help="check everything, and show what would run")
    else:
        parser.add_argument("name", metavar="RUN|PIPELINE", help="what to go on with")
        parser.add_argument("--ranks", type=int, metavar="N", help="go on in so many processes, from now on")
        parser.add_argument("--mesh", default="", metavar="PRESET", help="go on with what they share: ddp, fsdp, tp, …")
    parser.add_argument(
        "--from-stage", default="", metavar="STAGE", help="of a pipeline: do this stage and what needs it again"
    )
    parser.add_argument("--detach", action="store_true", help="return as soon as it runs")


def main(arguments: Namespace) -> int:
    """Start or resume, wait, and say what came of it."""
    workspace = workspace_of(arguments)
    if arguments.verb == "resume":
        found = find(workspace, arguments.name)
        if isinstance(found, Run):
            if arguments.from_stage:
                raise _no_stages(found.id)
            if arguments.ranks is not None or arguments.mesh:
                choose(found, ranks=arguments.ranks, mesh=arguments.mesh)
            return _resume_run(found, workspace, arguments.detach)
        if arguments.ranks is not None or arguments.mesh:
            raise UserError("a layout is that of one run", where=found.id, hint="name the run of a stage")
        return _resume_plan(found, workspace, arguments.detach, arguments.from_stage)
    below = arguments.below
    work = api.read(arguments.file, arguments.overrides, workspace=workspace, name=arguments.name, below=below)
    if arguments.dry_run:
        return _show_plan(work, workspace)
    if isinstance(work, LoadedJob):
        if arguments.from_stage:
            raise _no_stages(arguments.file)
        return submit(work, workspace, detach=arguments.detach)
    plan = api.prepare(work, workspace=workspace)
    if plan.state in ACTIVE:
        return _resume_plan(plan, workspace, arguments.detach, arguments.from_stage)
    if arguments.from_stage:
        start_from(plan, work, workspace, arguments.from_stage)
    if arguments.detach:
        plan.write(work)
        return detach_plan(plan, workspace)
    with watching() as watcher:
        result = api.start(work, workspace=workspace, watcher=watcher, attendant=TerminalAttendant(watcher))
    return conclude_plan(Plan(workspace.plans / work.name), workspace, result)


def _notifier(workspace: Workspace) -> Notifier:
    """Who is told of a single run is said by the workspace; a pipeline tells for itself."""
    return open_notifier(workspace_notify(workspace.environment), root=workspace.root)


def submit(work: LoadedJob, workspace: Workspace, *, detach: bool) -> int:
    """Start a run; one that is there already is gone on with, and of one that is done the result is shown.

    Args:
        work: The job.
        workspace: Where its run is made.
        detach: Return as soon as it runs; else wait for its end.

    Returns:
        The exit code.
    """
    notifier = _notifier(workspace)  # a mistake in it shows before there is a run
    run = api.submit(work, workspace=workspace)
    state = run.state
    if state is State.COMPLETED:
        print(f"{run.id} has completed already, with the same config and code; this is its result")
        return conclude(run, api.result_of(run, state))
    if state is State.UNKNOWN:
        raise api.elsewhere(run.id)
    if state in RESUMABLE:
        print(f"{run.id} exists already, with the same config and code, and is {state}; going on with it")
    if state in ACTIVE:
        _say_it_runs(run, detach)
    if detach:
        return _detach_once(run)
    with notifier, watching() as watcher:
        result = api.join(run, TellingWatcher(watcher, notifier))
        _tell(notifier, result)
    return conclude(run, result)


def _detach_once(run: Run) -> int:
    try:
        return 0 if run.state in ACTIVE else detach_run(run)
    except IllegalMove:
        print(f"{run.id}: another process has just started it")
        return 0


def _attend(run: Run, detach: bool, notifier: Notifier) -> int:
    try:
        if detach:
            return detach_run(run)
        with notifier, watching() as watcher:
            result = api.attend(run, TellingWatcher(watcher, notifier))
            _tell(notifier, result)
    except IllegalMove as error:
        raise api.started_elsewhere(run.id) from error
    return conclude(run, result)


def _tell(notifier: Notifier, result: JobResult) -> None:
    facts = {"run": result.run, "job": result.job, "state": result.status}
    reason = {"reason": api.cause(result.failure)} if result.failure else {}
    if result.status in (State.FAILED, State.INTERRUPTED):
        notifier.tell("failure", **facts, **reason)
    notifier.tell("completion", **facts, **reason)


def _resume_run(run: Run, workspace: Workspace, detach: bool) -> int:
    run.states.read()  # says what is damaged
    state = run.state
    if state is State.COMPLETED:
        print(f"{run.id} has completed already; clew show {run.id} shows what came of it")
        return 0
    if state is State.UNKNOWN:
        raise api.elsewhere(run.id)
    if state is State.PAUSED:
        LiveRun(run).resume()
        print(f"{run.id} was paused; it goes on")
    elif state in ACTIVE:
        _say_it_runs(run, detach)
    if state in ACTIVE and detach:
        return 0
    return _attend(run, detach, _notifier(workspace))


def _say_it_runs(run: Run, detach: bool) -> None:
    doing = "paused, and clew resume lets it go on" if run.state is State.PAUSED else "running already"
    print(f"{run.id} is {doing}, attempt {run.states.read().attempt}{'' if detach else '; following it'}")


def _resume_plan(plan: Plan, workspace: Workspace, detach: bool, from_stage: str = "") -> int:
    state = plan.state
    if from_stage and state not in ACTIVE | {State.UNKNOWN}:
        if (plan.path / "tree.json").is_file():  # else it was never started, which is said below
            start_from(plan, plan.pipeline, workspace, from_stage)
    elif from_stage:
        raise UserError(f"the pipeline is {state}", where=plan.id, hint=f"clew stop {plan.id} ends it")
    elif state is State.COMPLETED:
        print(f"{plan.id} has completed already; clew show {plan.id} shows what came of it")
        return 0
    if state is State.UNKNOWN:
        raise api.elsewhere(plan.id)
    if state in ACTIVE:
        print(f"{plan.id} is running already{'' if detach else '; following it'}")
        for question in plan.questions().values():
            print(f"  it waits for: clew answer {plan.id} {question.stage} {'|'.join(CHOICES)}")
        if detach:
            return 0
    if detach:
        return detach_plan(plan, workspace)
    with watching() as watcher:
        attendant = TerminalAttendant(watcher)
        result = api.attend_plan(plan, workspace=workspace, watcher=watcher, attendant=attendant)
    return conclude_plan(plan, workspace, result)


def _no_stages(name: str) -> UserError:
    return UserError("a single job has no stages", where=name, hint="--from-stage is for pipelines")


def _show_plan(work: LoadedJob | Pipeline, workspace: Workspace) -> int:
    """Print what would run; make nothing."""
    api.check_name(work, workspace=workspace)
    loaded = api.check(work, workspace=workspace)
    for name, job in loaded.items():
        print(f"# {name + ': ' if name else ''}{describe_job(job)}")
    if isinstance(work, Pipeline):
        print(f"# {describe_pipeline(work)}")
    print(to_yaml(resolved(work)), end="")
    name = work.config.name if isinstance(work, LoadedJob) else ""
    there = f"; the run {name} is there already" if name and (workspace.runs / name).exists() else ""
    print(f"dry run: everything checked, nothing started{there}", file=sys.stderr)
    return 0
