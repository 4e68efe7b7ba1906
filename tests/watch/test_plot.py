"""Curves in characters."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.cli.screen.plot import plot

STEPS = [(float(step), float(step)) for step in range(11)]
POINTS = st.lists(st.tuples(st.integers(0, 10**6).map(float), st.floats(width=32)), min_size=1, max_size=50).map(sorted)


def test_a_rising_line_runs_from_one_corner_to_the_other_between_its_numbers() -> None:
    assert plot(STEPS, 14, 5) == [
        "10         ⢀⡠⠊",
        "        ⢀⡠⠊⠁",
        "     ⢀⠤⠒⠁",
        " 0 ⣀⠔⠁",
        "   0        10",
    ]


def test_a_value_that_is_not_finite_leaves_a_gap() -> None:
    whole = plot([(0.0, 1.0), (1.0, 1.0), (2.0, 1.0)], 30, 4)
    broken = plot([(0.0, 1.0), (1.0, math.nan), (2.0, 1.0)], 30, 4)
    assert sum(line.count("⠤") + line.count("⠒") + line.count("⠉") + line.count("⣀") for line in whole) > 20
    assert sum(line.count(chr(code)) for line in broken for code in range(0x2801, 0x2900)) == 2


def test_by_the_logarithm_a_tenth_is_as_far_as_the_next_tenth() -> None:
    points = [(0.0, 100.0), (1.0, 10.0), (2.0, 1.0)]
    assert plot(points, 20, 5, log=True) == [
        "100 ⠉⠢⠤⡀",
        "       ⠈⠉⠢⠤⡀",
        "           ⠈⠉⠒⠤⣀",
        "  1             ⠉⠒⠤⣀",
        "    0              2",
    ]
    assert plot(points, 20, 5) != plot(points, 20, 5, log=True)


def test_a_curve_that_reaches_zero_is_not_drawn_by_its_logarithm() -> None:
    points = [(0.0, 1.0), (1.0, 0.0)]
    assert plot(points, 20, 5, log=True) == plot(points, 20, 5)


@pytest.mark.parametrize("points", [[], [(1.0, math.nan)], [(1.0, math.inf)]])
def test_without_a_number_there_is_nothing_to_draw(points) -> None:
    assert plot(points, 40, 10) == []


@given(POINTS, st.integers(0, 60), st.integers(0, 20), st.booleans())
def test_whatever_is_drawn_fits(points, width: int, height: int, log: bool) -> None:
    lines = plot(points, width, height, log=log)
    assert len(lines) in (0, height)
    assert all(len(line) <= width for line in lines)


@given(st.floats(-1e30, 1e30), st.integers(0, 10**9))
def test_a_single_point_is_a_single_dot(value: float, step: int) -> None:
    drawn = "".join(plot([(float(step), value)], 60, 8)[:-1])
    assert sum(0x2800 < ord(char) < 0x2900 for char in drawn) == 1
