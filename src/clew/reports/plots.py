"""What a figure shows, without saying how it is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from clew.reports.series import Point


@dataclass(frozen=True)
class Line:
    """Points in the order of their steps; a value that is not finite interrupts the line."""

    label: str
    points: Sequence[Point]


@dataclass(frozen=True)
class Curves:
    """Lines over steps."""

    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line]
    resumed: Sequence[int] = ()
    """Steps at which a later attempt went on."""


@dataclass(frozen=True)
class Dot:
    """A value with its interval, if it has one."""

    label: str
    value: float
    text: str
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Dots:
    """One value in each row, the first on top."""

    title: str
    x_label: str
    rows: Sequence[Dot]
    limits: tuple[float, float] | None = None
    """Ends of the axis; None leaves them to the values."""


Plot: TypeAlias = Sequence[Curves | Dots]
"""Panels side by side, three in a row."""
