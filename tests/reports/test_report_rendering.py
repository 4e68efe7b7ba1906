"""Both renderers show any text literally, wherever it stands."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from clew.reports.document import Code, Column, Document, Figure, Mono, Note, Paragraph, Section, Strong, Table
from clew.reports.formats import clean
from clew.reports.html import to_html
from clew.reports.markdown import to_markdown
from clew.reports.plots import Curves

NASTY = (
    "a | b\n\n`code` ```\n<script>alert(1)</script> **bold** [x](javascript:y) $z$ \\| &amp; _u_ ~~s~~ # 1. - > ![i](j)"
)
texts = st.text(st.one_of(st.sampled_from("|`\\*_<>&[]()$~\n #-!"), st.characters(codec="utf-8")), max_size=40)
nasty = example(NASTY)


class Page(HTMLParser):
    """Takes a page apart: the tags that are open, the text of cells and pre elements, and all tag names."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: dict[str, list[str]] = {"td": [], "pre": [], "p": []}
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == [], "every element is closed"

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        if tag == "br":
            self.handle_data("\n")
        if tag in ("br", "meta", "img", "!doctype"):
            return
        self._open.append(tag)
        if tag in self.texts:
            self.texts[tag].append("")

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        for tag in set(self._open) & set(self.texts):
            self.texts[tag][-1] += data


def parse_markdown(text: str) -> Page:
    """As a viewer does that allows tags in Markdown."""
    return Page(MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(text))


def same(shown: str, text: str) -> bool:
    """Equal up to blanks, which renderers may turn into hard ones or trim."""
    return shown.split() == clean(text).split()


def document(*blocks):
    return Document("A title", blocks)


def table(cell):
    return document(Table([Column("a"), Column("b", numeric=True)], [[cell, "1"], ["2", "3"]]))


@nasty
@given(texts)
@pytest.mark.parametrize("part", [str, Mono])
def test_a_cell_of_a_markdown_table_shows_any_text_and_breaks_nothing(part, text):
    page = parse_markdown(to_markdown(table(part(text)), (), "files"))
    assert page.tags.count("table") == 1
    assert len(page.texts["td"]) == 4
    assert same(page.texts["td"][0], text)
    assert page.texts["td"][1:] == ["1", "2", "3"]


@nasty
@given(texts)
@pytest.mark.parametrize("part", [str, Mono, Strong])
def test_a_markdown_paragraph_shows_any_text_and_gets_no_foreign_tags(part, text):
    page = parse_markdown(to_markdown(document(Paragraph(["Start ", part(text), " end."])), (), "files"))
    assert set(page.tags) <= {"h1", "p", "code", "br", "strong"}
    if part is not Strong:  # emphasis around blanks or punctuation is no emphasis in Markdown, so stars may stay
        assert same(page.texts["p"][0], f"Start {clean(text)} end.")


@nasty
@given(texts)
def test_a_markdown_code_block_holds_any_lines(text):
    page = parse_markdown(to_markdown(document(Code(text), Paragraph("end")), (), "files"))
    assert page.texts["pre"] == [clean(text) + "\n"]
    assert page.texts["p"] == ["end"]


@nasty
@given(texts)
@pytest.mark.parametrize("part", [str, Mono, Strong])
def test_an_html_cell_shows_any_text_exactly(part, text):
    page = Page(to_html(table(part(text)), {}))
    assert page.texts["td"] == [clean(text), "1", "2", "3"]


@nasty
@given(texts)
def test_an_html_code_block_holds_any_lines(text):
    assert Page(to_html(document(Code(text)), {})).texts["pre"] == ["\n" + clean(text)]


def test_names_are_plain_backticks_in_markdown():
    assert "Stage `eval_base` is done" in to_markdown(
        document(Paragraph(["Stage ", Mono("eval_base"), " is done"])), (), ""
    )


def test_indentation_survives_in_a_markdown_cell():
    assert "<code>def f():<br>&nbsp;&nbsp;&nbsp;&nbsp;pass</code>" in to_markdown(
        table(Mono("def f():\n    pass")), (), ""
    )


def test_headings_follow_the_nesting():
    nested = document(Section("One", [Section("Two", [Note("why")])]))
    assert to_markdown(nested, (), "") == "# A title\n\n## One\n\n### Two\n\n> why\n"
    assert "<h2>One</h2>\n<section>\n<h3>Two</h3>" in to_html(nested, {})


FIGURE = Figure("loss", 'Loss "<now>"', [Curves("loss", "step", "loss", [])])


def test_a_figure_is_linked_from_markdown_and_inlined_in_html():
    assert "](report_files/loss.png)" in to_markdown(document(FIGURE), {"loss"}, "report_files")
    page = to_html(document(FIGURE), {"loss": "<svg></svg>"})
    assert 'aria-label="Loss &quot;&lt;now&gt;&quot;"' in page
    assert "<svg></svg>" in page


def test_a_figure_that_was_not_drawn_leaves_its_caption():
    assert "> Figure left out: Loss" in to_markdown(document(FIGURE), (), "report_files")
    assert '<p class="note">Figure left out: Loss' in to_html(document(FIGURE), {})


def test_a_row_must_fit_its_table():
    with pytest.raises(AssertionError, match="as many cells"):
        Table([Column("a")], [["1", "2"]])
