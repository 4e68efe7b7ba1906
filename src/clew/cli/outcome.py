"""What is said at the end of a run or a pipeline, and with which exit code."""

from __future__ import annotations

from collections.abc import Mapping

from clew.cli.advice import LONGEST, way_on
from clew.cli.reporting import report_plan
from clew.cli.text import clock, figures, one_line, print_table
from clew.config.layers import word_of
from clew.errors import ClewError
from clew.logs.logger import Logger
from clew.plans import Plan
from clew.runs import JobResult, Run, State, Workspace
from clew.runs.following import read_records, trouble_of


def conclude(run: Run, result: JobResult) -> int:
    """Say what came of a run; 0 when it has completed, else 1."""
    if result.metrics:
        print(f"metrics: {figures(result.metrics)}")
    for name, artifact in result.artifacts.items():
        print(f"{name}: {run.path / artifact.path}")
    for kind in ("push", "tracker"):  # they fail nothing, so nobody would look for copies that were never made
        for record in read_records(run.path, kind):
            if trouble := trouble_of(run.path, record):
                Logger("clew.cli").warning(f"{run.id}: {record.name}: {one_line(trouble, LONGEST)}", run=run.id)
    return exit_code(result)


def conclude_plan(plan: Plan, workspace: Workspace, result: JobResult) -> int:
    """Say what came of a pipeline, and write its report; 0 when it has completed, else 1."""
    runs = {stage: Run(workspace.runs / name) for stage, name in result.notes["stages"].items()}
    print_stages(plan, runs)
    try:
        print(f"report: {report_plan(plan, runs).html}")
    except (ClewError, OSError) as error:
        # The runs are what counts: their end must be told, and with their exit code.
        Logger("clew.cli").warning(f"no report was written: {one_line(str(error))}", pipeline=plan.id)
    return exit_code(result)


def print_stages(plan: Plan, runs: Mapping[str, Run]) -> None:
    """Print what stands after each stage, in an order in which they can run."""
    rows = []
    skipped, asked = plan.skipped(), plan.questions()
    for stage in plan.pipeline.stages.values():
        run = runs.get(stage.name)
        result = run.result if run and run.state is State.COMPLETED else None
        rows.append(
            (
                stage.name,
                word_of(stage.tree, "job"),
                _state(run, stage.name in skipped, stage.name in asked),
                clock(result.seconds) if result else "",
                figures(result.metrics) if result else "",
            )
        )
    print_table(("stage", "job", "state", "time", "metrics"), rows)


def _state(run: Run | None, skipped: bool, asked: bool) -> str:
    if asked:
        return "waits for an answer"
    return str(run.state) if run else "skipped" if skipped else "not started"


def exit_code(result: JobResult) -> int:
    """0 when it has completed; else 1, after a line that says why and how to go on."""
    if result.status == State.COMPLETED:
        return 0
    why = f": {one_line(result.failure.cause, LONGEST)}" if result.failure else ""
    way = way_on(result.run, result.failure, is_plan=result.job == "pipeline")
    text = f"{result.run} {result.status}{why}; {'go on with: ' if way.startswith('clew') else ''}{way}"
    Logger("clew.cli").error(text, run=result.run, status=result.status)
    return 1
