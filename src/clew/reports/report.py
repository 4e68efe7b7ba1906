"""Puts a report together and writes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from clew.errors import MissingLibrary, UserError
from clew.reports.curves import curves_section
from clew.reports.document import Block, Document, Figure, Note, Section, figures_of
from clew.reports.failures import failures_section
from clew.reports.figures import Drawing, draw
from clew.reports.filling import Filled
from clew.reports.formats import slug
from clew.reports.html import blocks_to_html, page, to_html
from clew.reports.live import live_sections
from clew.reports.markdown import blocks_to_markdown, to_markdown
from clew.reports.overview import pipeline_summary, run_summary, stages_section
from clew.reports.provenance import artifacts_section, environment_section
from clew.reports.results import results_section
from clew.reports.rewards import rewards_section
from clew.reports.samples import samples_section
from clew.reports.stages import Stage, StageView
from clew.reports.subject import Subject
from clew.reports.template import read_template
from clew.runs import Run
from clew.runs.files import write_atomically

_NAME = "report"


@dataclass(frozen=True)
class ReportFiles:
    """Where a report was written."""

    markdown: Path
    """``report.md``, whose figures are in ``report_files/`` beside it; of a template, under the template's name."""
    html: Path
    """``report.html``, one file that holds everything."""


def write_run_report(run: Run, folder: Path | None = None, *, template: Path | None = None) -> ReportFiles:
    """Write the report of one run; an older report in the same folder is replaced.

    Without matplotlib the report is written without figures, and says so.

    Args:
        run: The run, in whatever state.
        folder: Where to; None means the run's directory.
        template: Markdown with placeholders to use instead of the usual sections; the report gets its name.

    Raises:
        UserError: If ``run.json`` is damaged, or the template has a problem.
    """
    stage = Stage(StageView(run.id, run.info.job, run))
    if template is not None:
        return _write_filled(template, Subject(run.id, [stage], "run"), folder or run.path)
    blocks: list[Block] = [run_summary(stage), *_sections([stage], of="run")]
    return _write(Document(f"Run {run.id}", blocks), folder or run.path)


def write_pipeline_report(
    title: str, folder: Path, stages: Sequence[StageView], *, template: Path | None = None
) -> ReportFiles:
    """Write the report of a pipeline; an older report in the same folder is replaced.

    Without matplotlib the report is written without figures, and says so.

    Args:
        title: The pipeline's name.
        folder: Where to; it is made when it is not there.
        stages: All stages, in an order in which they can run.
        template: Markdown with placeholders to use instead of the usual sections; the report gets its name.

    Raises:
        UserError: If the template has a problem.
    """
    read = [Stage(view) for view in stages]
    if template is not None:
        return _write_filled(template, Subject(title, read, "pipeline"), folder)
    blocks: list[Block] = [pipeline_summary(title, read), *_sections(read, of="pipeline")]
    return _write(Document(f"Pipeline {title}", blocks), folder)


def _sections(stages: Sequence[Stage], *, of: str) -> list[Section]:
    return [
        results_section(stages, of=of),
        stages_section(stages, of=of),
        curves_section(stages, of=of),
        rewards_section(stages, of=of),
        samples_section(stages, of=of),
        *live_sections(stages, of=of),
        failures_section(stages, of=of),
        environment_section(stages),
        artifacts_section(stages, of=of),
    ]


def _write(document: Document, folder: Path) -> ReportFiles:
    drawings, notice = _draw(figures_of(document.blocks))
    if notice:
        document = Document(document.title, [notice, *document.blocks])
    text = to_markdown(document, drawings, f"{_NAME}_files")
    return _write_files(folder, _NAME, text, drawings, to_html(document, _inline(drawings)))


def _write_filled(path: Path, subject: Subject, folder: Path) -> ReportFiles:
    """Write a template's report under the template's own name."""
    filled = Filled(read_template(path), subject)
    name = slug(path.stem)
    if (folder / f"{name}.md").exists() and path.samefile(folder / f"{name}.md"):
        raise UserError("the report would replace its template", where=str(path), hint="move or rename the template")
    drawings, notice = _draw(filled.figures)
    text, body = filled.to_markdown(drawings, f"{name}_files"), filled.to_html(_inline(drawings))
    if notice:
        text = f"{blocks_to_markdown([notice], (), '', 1)}\n\n{text}"
        body = f"{blocks_to_html([notice], {}, 1)}\n{body}"
    return _write_files(folder, name, text, drawings, page(filled.title or subject.title, body))


def _draw(figures: Sequence[Figure]) -> tuple[dict[str, Drawing], Note | None]:
    """Draw figures; without matplotlib there are none, and a note that says so."""
    try:
        return {figure.name: draw(figure) for figure in figures}, None
    except MissingLibrary as error:
        return {}, Note(f"The figures are left out: {error.what}. {error.hint} brings it.")


def _inline(drawings: Mapping[str, Drawing]) -> dict[str, str]:
    return {name: drawing.inline_svg for name, drawing in drawings.items()}


def _write_files(folder: Path, name: str, text: str, drawings: Mapping[str, Drawing], html: str) -> ReportFiles:
    folder.mkdir(parents=True, exist_ok=True)
    _write_figures(folder / f"{name}_files", drawings)
    files = ReportFiles(folder / f"{name}.md", folder / f"{name}.html")
    write_atomically(files.markdown, text)
    write_atomically(files.html, html)
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
