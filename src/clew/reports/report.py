"""Puts a report together and writes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from clew.errors import MissingLibrary
from clew.reports.curves import curves_section
from clew.reports.document import Block, Document, Note, Section, figures_of
from clew.reports.failures import failures_section
from clew.reports.figures import Drawing, draw
from clew.reports.html import to_html
from clew.reports.markdown import to_markdown
from clew.reports.overview import pipeline_summary, run_summary, stages_section
from clew.reports.provenance import artifacts_section, environment_section
from clew.reports.results import results_section
from clew.reports.rewards import rewards_section
from clew.reports.samples import samples_section
from clew.reports.stages import Stage, StageView
from clew.runs import Run
from clew.runs.files import write_atomically

FIGURES = "report_files"


@dataclass(frozen=True)
class ReportFiles:
    """Where a report was written."""

    markdown: Path
    """``report.md``, whose figures are in ``report_files/`` beside it."""
    html: Path
    """``report.html``, one file that holds everything."""


def write_run_report(run: Run, folder: Path | None = None) -> ReportFiles:
    """Write the report of one run; an older report in the same folder is replaced.

    Without matplotlib the report is written without figures, and says so.

    Args:
        run: The run, in whatever state.
        folder: Where to; None means the run's directory.

    Raises:
        UserError: If ``run.json`` is damaged.
    """
    stage = Stage(StageView(run.id, run.info.job, run))
    blocks: list[Block] = [run_summary(stage), *_sections([stage], of="run")]
    return _write(Document(f"Run {run.id}", blocks), folder or run.path)


def write_pipeline_report(title: str, folder: Path, stages: Sequence[StageView]) -> ReportFiles:
    """Write the report of a pipeline; an older report in the same folder is replaced.

    Without matplotlib the report is written without figures, and says so.

    Args:
        title: The pipeline's name.
        folder: Where to; it is made when it is not there.
        stages: All stages, in an order in which they can run.
    """
    read = [Stage(view) for view in stages]
    blocks: list[Block] = [pipeline_summary(title, read), *_sections(read, of="pipeline")]
    return _write(Document(f"Pipeline {title}", blocks), folder)


def _sections(stages: Sequence[Stage], *, of: str) -> list[Section]:
    return [
        results_section(stages, of=of),
        stages_section(stages, of=of),
        curves_section(stages, of=of),
        rewards_section(stages, of=of),
        samples_section(stages, of=of),
        failures_section(stages, of=of),
        environment_section(stages),
        artifacts_section(stages, of=of),
    ]


def _write(document: Document, folder: Path) -> ReportFiles:
    folder.mkdir(parents=True, exist_ok=True)
    drawings: dict[str, Drawing] = {}
    try:
        drawings = {figure.name: draw(figure) for figure in figures_of(document.blocks)}
    except MissingLibrary as error:
        notice: Block = Note(f"The figures are left out: {error.what}. {error.hint} brings it.")
        document = Document(document.title, [notice, *document.blocks])
    _write_figures(folder / FIGURES, drawings)
    files = ReportFiles(folder / "report.md", folder / "report.html")
    write_atomically(files.markdown, to_markdown(document, drawings, FIGURES))
    write_atomically(files.html, to_html(document, {name: item.inline_svg for name, item in drawings.items()}))
    return files


def _write_figures(folder: Path, drawings: Mapping[str, Drawing]) -> None:
    """Write the figures and take away those of an older report."""
    if drawings:
        folder.mkdir(exist_ok=True)
    for name, drawing in drawings.items():
        (folder / f"{name}.svg").write_text(drawing.svg, encoding="utf-8")
        (folder / f"{name}.png").write_bytes(drawing.png)
    for path in [*folder.glob("*.svg"), *folder.glob("*.png")]:
        if path.stem not in drawings:
            path.unlink()
