"""A curve in characters: eight dots to each, by the Braille patterns of Unicode, between two axes with numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

from clew.cli.text import number
from clew.reports.series import Point

_BLANK = 0x2800
# The bit of each dot of a pattern, by row and column (The Unicode Standard, block "Braille Patterns").
_BITS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
_COLUMNS, _ROWS = 2, 4
_NARROWEST, _LOWEST = 4, 2

Dot = tuple[int, int]


def plot(points: Sequence[Point], width: int, height: int, *, log: bool = False) -> list[str]:
    """Draw a curve with its axes.

    Args:
        points: Steps and values, by step; a value that is not finite leaves a gap.
        width: Characters of a line.
        height: Lines.
        log: Whether values are drawn by their logarithm; only where all are above zero.

    Returns:
        ``height`` lines of at most ``width`` characters; fewer where there is no room, none without a finite point.
    """
    values = [value for _, value in points if math.isfinite(value)]
    if not values:
        return []
    log = log and min(values) > 0
    bottom, top = _span([math.log10(value) if log else value for value in values])
    labels = {height - 2: _label(bottom, log), 0: _label(top, log)}
    margin = max(map(len, labels.values())) + 1
    columns, rows = width - margin, height - 1
    if columns < _NARROWEST or rows < _LOWEST:
        return []
    scaled = [(step, math.log10(value) if log and value > 0 else value) for step, value in points]
    body = _body(scaled, (bottom, top), columns, rows)
    lines = [f"{labels.get(row, ''):>{margin - 1}} {cells}".rstrip() for row, cells in enumerate(body)]
    return [*lines, " " * margin + _ends(points, columns)]


def _label(value: float, log: bool) -> str:
    return number(10**value if log else value)


def _span(values: Sequence[float]) -> tuple[float, float]:
    """The lowest and the highest value, apart from each other."""
    low, high = min(values), max(values)
    if high > low:
        return low, high
    room = abs(low) / 10 or 1.0
    return low - room, high + room


def _ends(points: Sequence[Point], columns: int) -> str:
    """The first step at the left, the last one at the right."""
    first, last = f"{points[0][0]:g}", f"{points[-1][0]:.0f}"
    room = columns - len(first) - len(last)
    return f"{first}{' ' * room}{last}" if room > 0 else last[:columns]


def _body(points: Sequence[Point], span: tuple[float, float], columns: int, rows: int) -> list[str]:
    cells = [[_BLANK] * columns for _ in range(rows)]
    for x, y in _dots(points, span, columns * _COLUMNS - 1, rows * _ROWS - 1):
        cells[y // _ROWS][x // _COLUMNS] |= _BITS[y % _ROWS][x % _COLUMNS]
    return ["".join(chr(cell) if cell != _BLANK else " " for cell in row) for row in cells]


def _dots(points: Sequence[Point], span: tuple[float, float], right: int, below: int) -> Iterator[Dot]:
    """The dots of the lines between neighbours; a point between two gaps is a dot of its own."""
    first, last = points[0][0], points[-1][0]
    wide, (bottom, top) = (last - first) or 1, span
    placed: list[Dot | None] = [
        (round((step - first) / wide * right), round((top - value) / (top - bottom) * below))
        if math.isfinite(value)
        else None
        for step, value in points
    ]
    yield from (dot for dot in placed if dot is not None)
    for one, other in pairwise(placed):
        if one is not None and other is not None:
            yield from _line(one, other)


def _line(one: Dot, other: Dot) -> Iterator[Dot]:
    across, down = other[0] - one[0], other[1] - one[1]
    length = max(abs(across), abs(down))
    for place in range(1, length):
        yield one[0] + round(across * place / length), one[1] + round(down * place / length)
