"""``clew run``: start something, and wait for its end."""

from __future__ import annotations

import sys
from argparse import Namespace
from typing import TYPE_CHECKING

from clew import api
from clew.cli.attendant import TerminalAttendant
from clew.cli.configs import describe_job, describe_pipeline
from clew.cli.detach import detach_plan, detach_run
from clew.cli.finding import workspace_of
from clew.cli.outcome import conclude, conclude_plan
from clew.cli.progress import watching
from clew.cli.resume import resume_plan
from clew.cli.starting import no_stages, notifier_of, say_it_runs, say_what_stays, tell_end
from clew.config import to_yaml
from clew.jobs import LoadedJob
from clew.notify import TellingWatcher
from clew.plans import Pipeline, Plan, start_from
from clew.runs import ACTIVE, RESUMABLE, IllegalMove, Run, State, Workspace
from clew.runs.ids import check_spelling
from clew.sources import resolved

if TYPE_CHECKING:
    from clew.cli.parser import Parser


def configure(parser: Parser, verb: str) -> None:
    """Add the arguments."""
    parser.add_argument("file", metavar="FILE", help="the config of a job or a pipeline")
    parser.add_argument("overrides", nargs="*", default=[], metavar="key=value", help="values over those of the file")
    parser.add_argument("--name", default="", help="name of the run or the pipeline")
    parser.add_argument(
        "--from", dest="below", default="", metavar="RUN|FILE", help="lay the config of another run or file below"
    )
    parser.add_argument("--dry-run", action="store_true", help="check everything, and show what would run")
    parser.add_argument(
        "--from-stage", default="", metavar="STAGE", help="of a pipeline: do this stage and what needs it again"
    )
    parser.add_argument("--detach", action="store_true", help="return as soon as it runs")


def main(arguments: Namespace) -> int:
    """Start, wait, and say what came of it."""
    workspace = workspace_of(arguments)
    check_spelling(arguments.name, "--name")
    below = arguments.below
    work = api.read(arguments.file, arguments.overrides, workspace=workspace, name=arguments.name, below=below)
    if arguments.dry_run:
        return _show_plan(work, workspace)
    if isinstance(work, LoadedJob):
        if arguments.from_stage:
            raise no_stages(arguments.file)
        return submit(work, workspace, detach=arguments.detach)
    plan = api.prepare(work, workspace=workspace)
    if plan.state in ACTIVE:
        return resume_plan(plan, workspace, arguments.detach, arguments.from_stage)
    if arguments.from_stage:
        start_from(plan, work, workspace, arguments.from_stage)
    if arguments.detach:
        plan.write(work)
        return detach_plan(plan, workspace)
    with watching() as watcher:
        result = api.start(work, workspace=workspace, watcher=watcher, attendant=TerminalAttendant(watcher))
    return conclude_plan(Plan(workspace.plans / work.name), workspace, result)


def submit(work: LoadedJob, workspace: Workspace, *, detach: bool) -> int:
    """Start a run; one that is there already is gone on with, and of one that is done the result is shown.

    Args:
        work: The job.
        workspace: Where its run is made.
        detach: Return as soon as it runs; else wait for its end.

    Returns:
        The exit code.
    """
    notifier = notifier_of(workspace)  # a mistake in it shows before there is a run
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
        say_it_runs(run, detach)
    if state in ACTIVE | RESUMABLE:
        say_what_stays(run, work)
    if detach:
        return _detach_once(run)
    with notifier, watching() as watcher:
        result = api.join(run, TellingWatcher(watcher, notifier))
        tell_end(notifier, result)
    return conclude(run, result)


def _detach_once(run: Run) -> int:
    try:
        return 0 if run.state in ACTIVE else detach_run(run)
    except IllegalMove:
        print(f"{run.id}: another process has just started it")
        return 0


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
