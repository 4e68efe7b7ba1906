"""Clouds of samples, drawn by matplotlib without pyplot, so without state that outlives a figure."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from clew.errors import require

if TYPE_CHECKING:
    from clew.inspection.samples import Floats

DRAWN = 20_000
"""Of more points so many are drawn, taken at random with a fixed seed."""
_STYLE = {
    "font.size": 9,
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "axes.titlesize": 10,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


@dataclass(frozen=True)
class Cloud:
    """Points and what is written beside them; those with a coordinate or a colour that is not finite are left out.

    Attributes:
        x: [n] float64.
        y: [n] float64.
        colour: [n] float64, shown between its 2nd and its 98th percentile.
        title: Above it.
        labels: Of x, y and colour.
    """

    x: Floats
    y: Floats
    colour: Floats
    title: str
    labels: tuple[str, str, str]


def draw(cloud: Cloud) -> bytes:
    """Draw points.

    Returns:
        A PNG file; the same one for the same points.

    Raises:
        MissingLibrary: If matplotlib is not installed.
    """
    style = require("matplotlib.style", extra="report")
    with style.context(["default", _STYLE]):
        canvas = _canvas(cloud)
        stream = io.BytesIO()
        nothing: dict[str, Any] = {"Software": None}
        canvas.savefig(stream, format="png", dpi=160, metadata=nothing)
    return stream.getvalue()


def _canvas(cloud: Cloud) -> Any:
    module = require("matplotlib.figure", extra="report")
    drawn = np.flatnonzero(np.isfinite(cloud.x) & np.isfinite(cloud.y) & np.isfinite(cloud.colour))
    whole = len(drawn)
    if whole > DRAWN:
        drawn = np.sort(np.random.default_rng(0).choice(drawn, DRAWN, replace=False))
    canvas = module.Figure(figsize=(6.2, 4.6), layout="constrained")
    axes = canvas.add_subplot()
    title = cloud.title if whole <= DRAWN else f"{cloud.title} ({DRAWN:,} of {whole:,})"
    axes.set_title(title, loc="left")
    axes.set_xlabel(cloud.labels[0])
    axes.set_ylabel(cloud.labels[1])
    colour = cloud.colour[drawn]
    low, high = np.percentile(colour, [2, 98]) if len(drawn) else (0, 1)
    size = 14 if len(drawn) <= 1000 else 4
    points = axes.scatter(
        cloud.x[drawn], cloud.y[drawn], c=colour, s=size, cmap="viridis", vmin=low, vmax=high, linewidths=0, alpha=0.7
    )
    canvas.colorbar(points, label=cloud.labels[2])
    return canvas
