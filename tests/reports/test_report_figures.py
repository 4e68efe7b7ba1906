import io
import math
import sys
import xml.etree.ElementTree as ElementTree

import pytest
from PIL import Image

from clew.errors import MissingLibrary
from clew.reports.document import Figure
from clew.reports.figures import INK, draw
from clew.reports.plots import Curves, Dot, Dots, Line


def curves(*lines, **more):
    return Figure(
        "name", "caption", [Curves("training loss", "optimizer step", "loss (nats per token)", lines, **more)]
    )


LINE = Line("loss", [(1, 3.0), (2, math.nan), (3, 1.0)])
DOTS = Dots("exact", "% of examples", [Dot("base", 7.5, "7.5 %", (2.6, 19.9)), Dot("sft", 77.5, "77.5 %")], (-4, 104))


def text_of(svg):
    return [item.text for item in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_axes_are_labelled_with_units():
    shown = text_of(draw(curves(LINE)).inline_svg)
    assert {"training loss", "optimizer step", "loss (nats per token)"} <= set(shown)


def test_dots_carry_their_values():
    assert {"base", "sft", "7.5 %", "77.5 %"} <= set(text_of(draw(Figure("dots", "", [DOTS])).inline_svg))


def test_rows_are_named_once_for_panels_that_share_them():
    shown = text_of(draw(Figure("dots", "", [DOTS, DOTS])).inline_svg)
    assert shown.count("base") == 1


def test_many_panels_stand_in_rows_of_three_and_each_row_has_its_names():
    one, four = draw(Figure("dots", "", [DOTS] * 3)), draw(Figure("dots", "", [DOTS] * 4))
    assert text_of(four.inline_svg).count("base") == 2
    (width, height), (wide, high) = (Image.open(io.BytesIO(drawing.png)).size for drawing in (one, four))
    assert (wide, high) == (width, pytest.approx(2 * height, abs=2))


def test_several_lines_have_a_legend_and_a_single_one_has_none():
    other = Line("format", [(1, 0.0), (2, 1.0)])
    assert "format" in text_of(draw(curves(LINE, other)).inline_svg)
    assert "format" not in text_of(draw(curves(other)).inline_svg)


def test_the_same_figure_is_drawn_the_same_twice():
    assert draw(curves(LINE, resumed=[2])) == draw(curves(LINE, resumed=[2]))


def test_the_inlined_svg_has_the_colours_of_the_page_and_no_ids_of_groups():
    svg = draw(curves(LINE)).inline_svg
    assert svg.startswith("<svg")
    assert "currentColor" in svg
    assert INK not in svg
    assert '<g id="' not in svg
    assert "<metadata" not in svg


def test_a_value_that_is_not_finite_is_marked():
    assert "#d0342c" in draw(curves(LINE)).svg
    assert "#d0342c" not in draw(curves(Line("loss", [(1, 2.0)]))).svg


def test_names_are_neither_formulas_nor_tags():
    shown = text_of(draw(curves(Line("a", [(1, 1.0)]), Line("$\\frac{1$ <script> 数", [(1, 2.0)]))).inline_svg)
    assert "$\\frac{1$ <script> 数" in shown


def test_the_png_is_a_picture():
    picture = Image.open(io.BytesIO(draw(curves(LINE)).png))
    assert picture.width > picture.height > 300


def test_drawing_leaves_the_settings_of_matplotlib_alone():
    matplotlib = pytest.importorskip("matplotlib")
    before = dict(matplotlib.rcParams)
    draw(curves(LINE))
    assert dict(matplotlib.rcParams) == before


def test_a_missing_matplotlib_is_named_with_what_brings_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingLibrary, match="the library 'matplotlib' is not installed"):
        draw(curves(LINE))
