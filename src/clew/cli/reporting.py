"""``clew report``: what came of a run or a pipeline, to be read and passed on."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from typing import TYPE_CHECKING

from clew.cli.finding import find, workspace_of
from clew.config.layers import word_of
from clew.plans import Plan, latest_runs
from clew.reports import ReportFiles, StageView, write_pipeline_report, write_run_report
from clew.runs import Run

if TYPE_CHECKING:
    from clew.cli.parser import Parser


def configure(parser: Parser, verb: str) -> None:
    """Add the argument."""
    parser.add_argument("name", metavar="RUN|PIPELINE", help="what to report on, in whatever state it is")


def main(arguments: Namespace) -> int:
    """Write the report and print where it is."""
    workspace = workspace_of(arguments)
    found = find(workspace, arguments.name)
    files = write_run_report(found) if isinstance(found, Run) else report_plan(found, latest_runs(found, workspace))
    print(files.markdown)
    print(files.html)
    return 0


def report_plan(plan: Plan, runs: Mapping[str, Run]) -> ReportFiles:
    """Write the report of a pipeline, with one run for each stage that has one."""
    views = [
        StageView(stage.name, word_of(stage.tree, "job"), runs.get(stage.name), stage.needs)
        for stage in plan.pipeline.stages.values()
    ]
    return write_pipeline_report(plan.id, plan.path, views)
