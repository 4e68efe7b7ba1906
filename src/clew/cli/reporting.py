"""``clew report``: what came of a run or a pipeline, to be read and passed on."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from clew.cli.finding import find, workspace_of
from clew.cli.text import print_table
from clew.config.layers import word_of
from clew.errors import UserError
from clew.plans import Plan, latest_runs
from clew.reports import ReportFiles, StageView, write_pipeline_report, write_run_report
from clew.reports.placeholders import KINDS
from clew.runs import Run

if TYPE_CHECKING:
    from clew.cli.parser import Parser


def configure(parser: Parser, verb: str) -> None:
    """Add the arguments."""
    parser.add_argument("name", metavar="RUN|PIPELINE", nargs="?", help="what to report on, in whatever state it is")
    parser.add_argument(
        "--template", metavar="FILE.md", type=Path, help="Markdown with placeholders; the report gets its name"
    )
    parser.add_argument("--list-placeholders", action="store_true", help="print what a template can hold, and leave")


def main(arguments: Namespace) -> int:
    """Write the report and print where it is."""
    if arguments.list_placeholders:
        print_table(["placeholder", "becomes"], [[f"{{{{ {kind.usage} }}}}", kind.summary] for kind in KINDS.values()])
        return 0
    if arguments.name is None:
        raise UserError("it is not said what to report on", where="report", hint="clew ls shows what there is")
    workspace = workspace_of(arguments)
    found = find(workspace, arguments.name)
    if isinstance(found, Run):
        files = write_run_report(found, template=arguments.template)
    else:
        files = report_plan(found, latest_runs(found, workspace), template=arguments.template)
    print(files.markdown)
    print(files.html)
    return 0


def report_plan(plan: Plan, runs: Mapping[str, Run], *, template: Path | None = None) -> ReportFiles:
    """Write the report of a pipeline, with one run for each stage that has one."""
    views = [
        StageView(stage.name, word_of(stage.tree, "job"), runs.get(stage.name), stage.needs)
        for stage in plan.pipeline.stages.values()
    ]
    return write_pipeline_report(plan.id, plan.path, views, template=template)
