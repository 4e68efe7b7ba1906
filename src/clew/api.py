"""The library: what the command line does, as functions that return results.

:func:`run` is for everybody; the others are its parts, which the verbs of the command line put together.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from clew.builder import Pipeline
from clew.errors import UserError
from clew.jobs import LoadedJob, create_job_run
from clew.jobs.choices import Choice
from clew.jobs.same import check_same_run
from clew.lineage.compare import Comparison, compare
from clew.lineage.fork import Asked, Forked
from clew.lineage.fork import fork as lineage_fork
from clew.lineage.going_on import Heeding, Wish, go_on_with, let_end, set_in_pause
from clew.lineage.replay import Replayed
from clew.lineage.replay import replay as lineage_replay
from clew.logs.secrets import named_in
from clew.plans import Attendant, Executor, Plan, StageResult, find_plan, latest_runs, open_plan
from clew.plans import Pipeline as PipelineGraph
from clew.plans.storage import check_same_plan
from clew.plans.taking_over import take_from_elsewhere
from clew.runs import ACTIVE, RESUMABLE, Artifact, Failure, IllegalMove, JobResult, Run, RunExists, State, Workspace
from clew.session.live import LiveRun
from clew.sources import Source, Work, check, read
from clew.targets import LocalTarget, target_of
from clew.targets.local import CLAIM_SECONDS
from clew.targets.watching import TICK_SECONDS, Silent, Watcher, follow, is_over

__all__ = [
    "Pipeline",
    "Source",
    "Work",
    "attach",
    "attend",
    "attend_plan",
    "check",
    "fork",
    "join",
    "read",
    "replay",
    "resume",
    "run",
    "start",
    "submit",
    "take_from_elsewhere",
    "verify",
]


def run(
    config: Source,
    *,
    overrides: Sequence[str] = (),
    workspace: Workspace | Path | str | None = None,
    watcher: Watcher | None = None,
) -> JobResult:
    """Run a job or a pipeline and wait for it.

    What is submitted twice under a name, with the same config and code, is the same run: if it is running it is waited
    for, if it has completed its result is returned, else it goes on where it ended.

    The work happens in processes of their own, which import the file that defines the job: in a script, call this
    below ``if __name__ == "__main__":``.

    Args:
        config: A file, its content as a mapping, a job's config as an object, or a pipeline.
        overrides: ``key=value``, as on the command line.
        workspace: Where runs are kept; None takes ``$CLEW_WORKSPACE``, else the current folder.
        watcher: Is told how it goes; None shows nothing.

    Returns:
        What came of it; look at ``status``. A pipeline's metrics and artifacts are called ``<stage>.<name>``.

    Raises:
        ConfigError: With every problem that the config has.
        UserError: If another run of that name exists, or the workspace cannot be written.
    """
    place = workspace if isinstance(workspace, Workspace) else Workspace(workspace)
    return start(read(config, overrides, workspace=place), workspace=place, watcher=watcher)


def start(
    work: Work, *, workspace: Workspace, watcher: Watcher | None = None, attendant: Attendant | None = None
) -> JobResult:
    """Carry out what :func:`read` has loaded, and wait for it; the attendant may answer a pipeline's questions.

    Raises:
        UserError: If it cannot be started.
    """
    if isinstance(work, LoadedJob):
        return join(submit(work, workspace=workspace), watcher)
    plan = prepare(work, workspace=workspace)
    if plan.state in ACTIVE:
        return attend_plan(plan, workspace=workspace, watcher=watcher, attendant=attendant)
    return _execute(plan, work, workspace, watcher or Silent(), attendant)


def attach(run: Run | str, *, workspace: Workspace | Path | str | None = None) -> LiveRun:
    """Take hold of a live run, to ask it for something.

    Args:
        run: The run, or its name.
        workspace: Where runs are kept; None takes ``$CLEW_WORKSPACE``, else the current folder.

    Returns:
        What has a method for everything that can be asked.

    Raises:
        UserError: If there is no run of that name.
    """
    if isinstance(run, Run):
        return LiveRun(run)
    place = workspace if isinstance(workspace, Workspace) else Workspace(workspace)
    return LiveRun(place.find_run(run))


def fork(
    run: Run | str,
    *,
    at: int | str | None = None,
    name: str = "",
    overrides: Sequence[str] = (),
    select: str = "",
    order: str = "",
    switch: bool = False,
    hold: bool = False,
    wait: bool | float = True,
    workspace: Workspace | Path | str | None = None,
) -> Forked:
    """Make a child of a run, which goes on from where its parent is or was.

    Args:
        run: The parent, or its name; alive or not.
        at: A step, a tag, ``best`` or ``last``; None is where it is now.
        name: The child's name; empty makes one of its parent's.
        overrides: ``key=value``, what it does otherwise: keys of the config, also shortened (``lr``), and ``lr_mul``
            and ``wd_mul``, which multiply what is in force in the parent.
        select: What of the data it trains on, such as ``hardest 15%``; empty leaves it.
        order: In which order; empty leaves it.
        switch: Let the parent's process go on as the child; the parent is stopped there.
        hold: Only prepare it: ``clew resume`` starts it.
        wait: Whether to wait for a live parent; a number waits so many seconds at the most.
        workspace: Where runs are kept; None takes ``$CLEW_WORKSPACE``, else the current folder.

    Returns:
        The child, started unless it is held, or its parent has not come to it yet.

    Raises:
        UserError: If it cannot be; nothing is left behind then.
        RunFailed: If the parent ends before, or does not answer in time.
    """
    asked = Asked("" if at is None else str(at), name, tuple(overrides), select, order, switch)
    made = lineage_fork(attach(run, workspace=workspace).run, asked, wait=wait)
    if made.child is not None and not (switch or hold):
        target_of(made.child).launch(made.child)
    return made


def resume(
    run: Run | str,
    *,
    overrides: Sequence[str] = (),
    at: int | str | None = None,
    ranks: int | None = None,
    mesh: str = "",
    on: str = "",
    take_over: bool = False,
    workspace: Workspace | Path | str | None = None,
    watcher: Watcher | None = None,
) -> JobResult:
    """Go on with a run where it was left, or differently, and wait for its end.

    What alters the steps that are done is refused: :func:`fork` makes a child that goes on so.

    Args:
        run: The run, or its name. One that is alive is followed, one that is paused goes on.
        overrides: ``key=value``, from now on: keys of the config that count for no step that is done, such as
            ``checkpoint.every``, and numbers of the trainer, such as ``lr``.
        at: The checkpoint to go on from: a step, a tag, ``best`` or ``last``. What was done, saved and asked for after
            it counts no longer. None is the newest, and what was asked for later holds again at its steps.
        ranks: In how many processes; None leaves it.
        mesh: On which mesh, a preset; empty leaves it.
        on: On which target; empty leaves it.
        take_over: Take the run from an owner on another machine whose lease has run out; see
            :func:`take_from_elsewhere`.
        workspace: Where runs are kept; None takes ``$CLEW_WORKSPACE``, else the current folder.
        watcher: Is told how it goes; None shows nothing.

    Returns:
        What came of it; look at ``status``.

    Raises:
        UserError: If it cannot be, and nothing is changed; or if the run refuses what it is to set, and is stopped.
        ConfigError: With every problem that the config would have.
    """
    found = attach(run, workspace=workspace).run
    if take_over:
        take_from_elsewhere(found)
    wish = Wish(tuple(overrides), "" if at is None else str(at), ranks, mesh, on)
    choice = let_go_on(found, wish)
    if found.state is State.COMPLETED:
        return result_of(found, State.COMPLETED)
    heeding = Heeding(found, choice, watcher)
    try:
        result = attend(found, heeding)
    except IllegalMove as error:
        raise started_elsewhere(found.id) from error
    heeding.check()
    return result


def let_go_on(run: Run, wish: Wish) -> Choice | None:
    """Let a run that is paused go on, and write down what its next attempt is to do otherwise; start nothing.

    Args:
        run: The run.
        wish: What is said about it.

    Returns:
        What its next attempt will take up; None where there is nothing.

    Raises:
        UserError: If it cannot be, or the run belongs to another machine from which nothing answers.
    """
    run.states.read()  # says what is damaged
    if wish and run.state in ACTIVE:
        let_end(run)
    state = run.state
    if state is State.UNKNOWN:
        raise elsewhere(run.id)
    if state is State.PAUSED:
        if wish:
            set_in_pause(run, wish)
        LiveRun(run).resume()
        return None
    return go_on_with(run, wish) if wish else None


def replay(run: Run | str, *, name: str = "", workspace: Workspace | Path | str | None = None) -> Replayed:
    """Carry a run out once more, from its config and the commands in its journal, and compare the two step by step.

    Args:
        run: The run, or its name.
        name: The name of the new one; empty makes one.
        workspace: Where runs are kept; None takes ``$CLEW_WORKSPACE``, else the current folder.

    Returns:
        The runs that it made, and the first difference if there is one.

    Raises:
        UserError: If it cannot be replayed.
    """
    return lineage_replay(attach(run, workspace=workspace).run, name=name)


def verify(first: Run | str, second: Run | str, *, workspace: Workspace | Path | str | None = None) -> Comparison:
    """Compare two runs, as far as both have gone: their figures, and the hashes of their states.

    Args:
        first: A run, or its name.
        second: Another one.
        workspace: Where runs are kept; None takes ``$CLEW_WORKSPACE``, else the current folder.

    Returns:
        The first difference if there is one, and how much was compared.
    """
    return compare(attach(first, workspace=workspace).run, attach(second, workspace=workspace).run)


def submit(loaded: LoadedJob, *, workspace: Workspace) -> Run:
    """Make the directory of a job's run, or find the same run, without starting it.

    Raises:
        UserError: If the name is that of something else, the job's own check fails, or the workspace cannot be written.
    """
    name = loaded.config.name
    check_name(loaded, workspace=workspace)
    if name and (workspace.runs / name / "run.json").exists():
        return Run(workspace.runs / name)
    try:
        return create_job_run(workspace, loaded)
    except RunExists:  # somebody was quicker
        if not name:
            raise
        check_name(loaded, workspace=workspace)
        return Run(workspace.runs / name)


def prepare(pipeline: PipelineGraph, *, workspace: Workspace) -> Plan:
    """Make the directory of a pipeline, or find it, without starting anything. It may be at work already.

    Raises:
        UserError: If a stage cannot run, the name is a run's, another pipeline of this name is at work, or the
            workspace cannot be written.
    """
    check(pipeline, workspace=workspace)
    check_name(pipeline, workspace=workspace)
    plan = open_plan(workspace, pipeline.name)
    if plan.state in ACTIVE:
        check_same_plan(plan, pipeline)
    return plan


def join(run: Run, watcher: Watcher | None = None) -> JobResult:
    """Wait for what a submission asked for: the result that is there, the attempt under way, or else the next one.

    Raises:
        UserError: If it belongs to another machine from which nothing answers, or cannot be started.
    """
    deadline = time.monotonic() + CLAIM_SECONDS
    wanted = run.states.read().attempt + (run.state in RESUMABLE | {State.CREATED})
    while True:
        state, attempt = run.state, run.states.read().attempt
        if state is State.UNKNOWN:
            raise elsewhere(run.id)
        if state is State.COMPLETED or (is_over(state) and attempt >= wanted):
            return result_of(run, state)
        try:
            return attend(run, watcher)
        except IllegalMove as error:  # somebody else starts it just now
            if time.monotonic() > deadline:
                raise started_elsewhere(run.id) from error
            time.sleep(TICK_SECONDS)


def elsewhere(name: str) -> UserError:
    """The error about a run or pipeline of another machine."""
    what, hint = (
        "nothing answers from there",
        "resume it on that machine, or wait until it is known whether it lives",
    )
    gone = f"if that machine is gone for good, clew resume {name} --take-over takes it from there"
    return UserError(f"it was started on another machine, and {what}", where=name, hint=f"{hint}; {gone}")


def started_elsewhere(name: str) -> UserError:
    """The error about a run that somebody else has just asked for."""
    hint = f"clew show {name} shows how it is now"
    return UserError("another process has just started this run", where=name, hint=hint)


def attend(run: Run, watcher: Watcher | None = None) -> JobResult:
    """Start the next attempt at a run, or adopt the worker that is alive, and wait for its end.

    Raises:
        IllegalMove: If the run has completed, or belongs to another machine.
    """
    state = follow(target_of(run).launch(run), watcher or Silent(), run.id)
    return result_of(run, state)


def attend_plan(
    plan: Plan, *, workspace: Workspace, watcher: Watcher | None = None, attendant: Attendant | None = None
) -> JobResult:
    """Go on with a pipeline, or wait with whoever carries it out already.

    Raises:
        UserError: If the pipeline was never started.
    """
    if plan.state in ACTIVE:
        state = follow_plan(plan, workspace, watcher or Silent())
        return plan_result(plan, state, outside_results(plan, workspace))
    if not (plan.path / "tree.json").is_file():
        raise UserError("this pipeline was never started", where=plan.id, hint="start it with clew run FILE")
    return start(plan.pipeline, workspace=workspace, watcher=watcher, attendant=attendant)


def follow_plan(plan: Plan, workspace: Workspace, watcher: Watcher) -> State:
    """Wait until a pipeline that another process carries out is over, and return its state.

    Ctrl-C asks it to stop; a second Ctrl-C leaves.
    """
    active: dict[str, Run] = {}
    asked = False
    while True:
        try:
            state = plan.state
            _compare(plan, workspace, watcher, active)
            watcher.tick()
            if is_over(state):
                return state
            time.sleep(TICK_SECONDS)
        except KeyboardInterrupt:
            if asked:
                raise
            asked = True
            plan.inbox.send("stop")


def _compare(plan: Plan, workspace: Workspace, watcher: Watcher, active: dict[str, Run]) -> None:
    """Tell a watcher which stages have started and ended since the last look."""
    for stage, run in latest_runs(plan, workspace).items():
        state = run.state
        if stage not in active and state in ACTIVE:
            active[stage] = run
            watcher.started(stage, run)
        elif stage in active and is_over(state):
            del active[stage]
            watcher.ended(stage, run, state)


def _execute(
    plan: Plan, pipeline: PipelineGraph, workspace: Workspace, watcher: Watcher, attendant: Attendant | None
) -> JobResult:
    target = LocalTarget(secrets=named_in(asdict(pipeline.notify)))
    executor = Executor(plan, workspace, target, watcher, attendant)
    try:
        state = executor.execute(pipeline)
    except IllegalMove as error:
        if not _is_taken_up(plan):
            raise UserError("another process has just started this pipeline", where=plan.id) from error
        check_same_plan(plan, pipeline)
        return plan_result(plan, follow_plan(plan, workspace, watcher), outside_results(plan, workspace))
    return plan_result(plan, state, executor.results)


def _is_taken_up(plan: Plan) -> bool:
    """Wait until whoever has just asked for a plan carries it out, and say whether that has come to be."""
    deadline = time.monotonic() + CLAIM_SECONDS
    while plan.state is State.QUEUED and time.monotonic() < deadline:
        time.sleep(TICK_SECONDS)
    return plan.state is not State.QUEUED


def check_name(work: Work, *, workspace: Workspace) -> None:
    """Check that a name is free, or that of the same thing: runs and pipelines share one set of names.

    Raises:
        UserError: If it is taken.
    """
    name = work.config.name if isinstance(work, LoadedJob) else work.name
    run = workspace.runs / name
    if name and (run / "run.json").exists():
        if not isinstance(work, LoadedJob):
            raise UserError(f"a run named {name!r} exists already", where=str(run), hint="choose another --name")
        check_same_run(Run(run), work)
    if isinstance(work, LoadedJob) and (plan := find_plan(workspace, name)):
        raise UserError(f"a pipeline named {name!r} exists already", where=str(plan.path), hint="choose another --name")


# Results.


def result_of(run: Run, state: State) -> JobResult:
    """Return a run's result; one that an earlier attempt left behind does not count."""
    now = run.states.read()
    result = run.result
    if result is not None and (result.status, result.attempts) == (state.value, now.attempt):
        return result
    failure = None if state is State.COMPLETED else Failure(state.value, now.reason or _silent(state))
    return JobResult(run.id, run.info.job, state.value, run.busy_seconds(), now.attempt, failure=failure)


def _silent(state: State) -> str:
    """Why a run is in a state of which its process has said nothing."""
    return "its process is gone, without a last word" if state is State.INTERRUPTED else f"the run is {state}"


def outside_results(plan: Plan, workspace: Workspace) -> dict[str, StageResult]:
    """Return what has come of each stage that has a run, as somebody sees it who does not carry the plan out."""
    return {stage: StageResult(run.state, run) for stage, run in latest_runs(plan, workspace).items()}


def plan_result(plan: Plan, state: State, results: Mapping[str, StageResult]) -> JobResult:
    """Return what came of a pipeline; names of metrics and artifacts start with the stage's."""
    runs = {stage: item.run for stage, item in results.items() if item.run}
    done = {stage: result_of(run, results[stage].state) for stage, run in runs.items()}
    return JobResult(
        run=plan.id,
        job="pipeline",
        status=state.value,
        seconds=round(sum(result.seconds for result in done.values()), 3),
        attempts=plan.states.read().attempt,
        metrics={f"{stage}.{name}": value for stage, item in done.items() for name, value in item.metrics.items()},
        artifacts={
            f"{stage}.{name}": _seen_from(plan, runs[stage], artifact)
            for stage, item in done.items()
            for name, artifact in item.artifacts.items()
        },
        notes={"stages": {stage: run.id for stage, run in runs.items()}},
        failure=None if state is State.COMPLETED else _failure(state, results, done),
    )


def _seen_from(plan: Plan, run: Run, artifact: Artifact) -> Artifact:
    return replace(artifact, path=os.path.relpath(run.path / artifact.path, plan.path))


def _failure(state: State, results: Mapping[str, StageResult], done: Mapping[str, JobResult]) -> Failure:
    """The failure of the stage that gave the pipeline its state."""
    for stage, item in results.items():
        if item.error is not None:
            return Failure("stage", f"stage {stage}: {item.error}", lasting=item.failure.lasting)
        if item.state is state and (failure := done[stage].failure):
            reason = f"stage {stage} ({done[stage].run}): {failure.cause}"
            return Failure("stage", reason, failure.log_tail, lasting=failure.lasting)
    return Failure(state.value, "stop was asked for" if state is State.STOPPED else f"the pipeline is {state}")
