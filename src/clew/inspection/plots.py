"""Clouds of samples, drawn by matplotlib without pyplot, so without state that outlives a figure."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from clew.errors import require

if TYPE_CHECKING:
    from clew.inspection.samples import Floats, Ids

DRAWN = 20_000
"""Of more points so many are drawn, taken at random with a fixed seed."""
_COLOURS = ("#2f9561", "#3578c8", "#d07a1f", "#a8549a")
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
        colour: [n] float64, shown between its 2nd and its 98th percentile; with ``groups`` the number of the group.
        title: Above it.
        labels: Of x, y and colour.
        groups: What the groups are called.
    """

    x: Floats
    y: Floats
    colour: Floats
    title: str
    labels: tuple[str, str, str]
    groups: Sequence[str] = ()


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
    if cloud.groups:
        _scatter_groups(axes, cloud, drawn)
    else:
        low, high = np.percentile(cloud.colour[drawn], [2, 98]) if len(drawn) else (0, 1)
        points = _scatter(axes, cloud, drawn, c=cloud.colour[drawn], cmap="viridis", vmin=low, vmax=high)
        canvas.colorbar(points, label=cloud.labels[2])
    return canvas


def _scatter_groups(axes: Any, cloud: Cloud, drawn: Ids) -> None:
    for number, name in enumerate(cloud.groups):
        _scatter(axes, cloud, drawn[cloud.colour[drawn] == number], color=_COLOURS[number % len(_COLOURS)], label=name)
    axes.legend(title=cloud.labels[2], frameon=False, loc="upper left", bbox_to_anchor=(1, 1))


def _scatter(axes: Any, cloud: Cloud, places: Ids, **how: Any) -> Any:
    size = 14 if len(cloud.x) <= 1000 else 4
    return axes.scatter(cloud.x[places], cloud.y[places], s=size, linewidths=0, alpha=0.7, **how)
