"""What a report is made of, before it is Markdown or HTML.

Both renderers get the same tree, so both files say the same. Text in it is always plain: renderers escape it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from clew.reports.plots import Plot


@dataclass(frozen=True)
class Mono:
    """Text that stands exactly as it is: names, prompts, completions. Line breaks are kept."""

    text: str


@dataclass(frozen=True)
class Strong:
    """Text that stands out."""

    text: str


Inline: TypeAlias = str | Mono | Strong
Text: TypeAlias = Inline | Sequence[Inline]


def parts_of(text: Text) -> list[Inline]:
    """Return a text as a list of its parts."""
    return [text] if isinstance(text, str | Mono | Strong) else list(text)


@dataclass(frozen=True)
class Paragraph:
    """Running text."""

    text: Text


@dataclass(frozen=True)
class Note:
    """Says why something is not here, or how to read what is."""

    text: Text


@dataclass(frozen=True)
class Column:
    """A column of a table; numbers stand to the right."""

    title: Text
    numeric: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of cells, as many in each as there are columns."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[Text]]

    def __post_init__(self) -> None:
        assert all(len(row) == len(self.columns) for row in self.rows), "a row has as many cells as there are columns"


@dataclass(frozen=True)
class Code:
    """Lines of output."""

    text: str


@dataclass(frozen=True)
class Figure:
    """A plot under a file name, with a caption that also describes it to who cannot see it."""

    name: str
    caption: str
    plot: Plot


@dataclass(frozen=True)
class Section:
    """A heading with what belongs to it."""

    title: Text
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Document:
    """A whole report."""

    title: str
    blocks: Sequence[Block]


Block: TypeAlias = Paragraph | Note | Table | Code | Figure | Section


def figures_of(blocks: Sequence[Block]) -> list[Figure]:
    """Return all figures, in their order."""
    found: list[Figure] = []
    for block in blocks:
        if isinstance(block, Figure):
            found.append(block)
        elif isinstance(block, Section):
            found += figures_of(block.blocks)
    return found
