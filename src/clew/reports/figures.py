"""Draws plots with matplotlib: no pyplot, so no state that outlives a figure."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clew.errors import require
from clew.reports.document import Figure
from clew.reports.formats import clean, shorten
from clew.reports.plots import Curves, Dots, Plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

INK, PAPER = "#1b2129", "#fffffe"
"""Colours of text and ground; in a page they give way to the page's own."""
COLOURS = ("#3578c8", "#d07a1f", "#2f9561", "#a8549a", "#8a6d3b", "#6f6fc4")
_ALARM = "#d0342c"
_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.facecolor": "none",
    "axes.linewidth": 0.7,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "figure.facecolor": PAPER,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.fonttype": "none",  # text stays text: smaller, searchable, and in the colours of the page
}
_FEW_POINTS = 40
_MAX_NAME = 28
_COLUMNS = 3


@dataclass(frozen=True)
class Drawing:
    """A figure as files."""

    svg: str
    png: bytes

    @property
    def inline_svg(self) -> str:
        """The SVG for inside of a page: without a head, with the page's colours, and without ids that could clash."""
        svg = re.sub(r"<metadata>.*?</metadata>", "", self.svg[self.svg.index("<svg") :], flags=re.DOTALL)
        svg = re.sub(r'<g id="[^"]*"', "<g", svg)
        return svg.replace(INK, "currentColor").replace(PAPER, "none")


def draw(figure: Figure) -> Drawing:
    """Draw a figure.

    Raises:
        MissingLibrary: If matplotlib is not installed.
    """
    matplotlib = require("matplotlib", extra="report")
    style = require("matplotlib.style", extra="report")
    # The salt makes ids the same in every run, and different between the figures of one page.
    with style.context(["default", _STYLE]), matplotlib.rc_context({"svg.hashsalt": figure.name}):
        canvas = _canvas(figure.plot)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing from")
            return Drawing(_save(canvas, "svg").decode(), _save(canvas, "png"))


def _save(canvas: Canvas, form: str) -> bytes:
    stream = io.BytesIO()
    nothing: dict[str, Any] = {"Date": None} if form == "svg" else {"Software": None}
    canvas.savefig(stream, format=form, dpi=160 if form == "png" else 72, metadata=nothing)
    return stream.getvalue()


def _canvas(plot: Plot) -> Canvas:
    module = require("matplotlib.figure", extra="report")
    columns = min(len(plot), _COLUMNS)
    rows = math.ceil(len(plot) / columns)
    width = 6.2 if columns == 1 else 3.3 * columns
    canvas: Canvas = module.Figure(figsize=(width, rows * _height(plot)), layout="constrained")
    named: list[str] = []
    for place, panel in enumerate(plot):
        axes = canvas.add_subplot(rows, columns, place + 1)
        if isinstance(panel, Curves):
            _draw_curves(axes, panel)
        else:
            names = [shorten(clean(row.label), _MAX_NAME) for row in panel.rows]
            is_known = names == named and place % columns > 0
            _draw_dots(axes, panel, [""] * len(names) if is_known else names)
            named = names
    return canvas


def _height(plot: Plot) -> float:
    rows = [len(panel.rows) for panel in plot if isinstance(panel, Dots)]
    return 0.95 + 0.33 * max(rows) if rows else 2.5


def _draw_curves(axes: Axes, panel: Curves) -> None:
    _label(axes, panel.title, panel.x_label, panel.y_label)
    broken: list[float] = []
    for line, colour in zip(panel.lines, _colours(len(panel.lines)), strict=True):
        steps, values = [step for step, _ in line.points], [value for _, value in line.points]
        marker = "o" if len(steps) <= _FEW_POINTS else ""
        axes.plot(steps, values, color=colour, linewidth=1.1, marker=marker, markersize=3, label=clean(line.label))
        broken += [step for step, value in line.points if not math.isfinite(value)]
    for step in panel.resumed:
        axes.axvline(step, color=INK, linewidth=0.8, linestyle=":")
    if broken:
        # In the axis' own coordinates: a value that is not finite has no height.
        axes.plot(broken, [0.03] * len(broken), "x", color=_ALARM, markersize=5, transform=axes.get_xaxis_transform())
    axes.grid(axis="y", color=INK, alpha=0.15, linewidth=0.6)
    ticker = require("matplotlib.ticker", extra="report")
    axes.xaxis.set_major_locator(ticker.MaxNLocator(nbins=6, integer=True, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,.0f}"))
    if len(panel.lines) > 1:
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1))  # beside the lines, not across them


def _draw_dots(axes: Axes, panel: Dots, names: Sequence[str]) -> None:
    """Draw a row for each dot; panels beside it with the same rows leave the names to the first."""
    _label(axes, panel.title, panel.x_label, "")
    for place, row in enumerate(panel.rows):
        low, high = row.interval or (row.value, row.value)
        axes.plot([low, high], [place, place], color=COLOURS[0], linewidth=2.2, alpha=0.45, solid_capstyle="butt")
        axes.plot([row.value], [place], "o", color=COLOURS[0], markersize=5)
        axes.annotate(row.text, (row.value, place), (0, 5), textcoords="offset points", ha="center", fontsize=8)
    axes.set_yticks(range(len(panel.rows)), names)
    axes.set_ylim(len(panel.rows) - 0.5, -0.7)
    if panel.limits:
        axes.set_xlim(*panel.limits)
    axes.margins(x=0.15)
    axes.grid(axis="x", color=INK, alpha=0.15, linewidth=0.6)


def _label(axes: Axes, title: str, x_label: str, y_label: str) -> None:
    axes.set_title(clean(title), loc="left")
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)


def _colours(count: int) -> Sequence[str]:
    return [COLOURS[place % len(COLOURS)] for place in range(count)]
