"""Renders a document as GitHub-flavoured Markdown."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from clew.reports.document import (
    Block,
    Code,
    Column,
    Document,
    Figure,
    Inline,
    Mono,
    Note,
    Paragraph,
    Section,
    Strong,
    Table,
    Text,
    parts_of,
)
from clew.reports.formats import clean

_SPECIAL = re.compile(r"[\\`*\[\]~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "&#124;"}
_SIMPLE_CODE = re.compile(r"[^\s`|\\&<>](?:[^\n`|\\]*[^\s`|\\])?")


def to_markdown(document: Document, figures: Collection[str], folder: str) -> str:
    """Render a document.

    Args:
        document: The report.
        figures: Names of the figures that exist as ``folder/NAME.png``.
        folder: Where they are, relative to the Markdown file.
    """
    return f"# {escape(document.title)}\n\n{blocks_to_markdown(document.blocks, figures, folder, 2)}\n"


def blocks_to_markdown(blocks: Sequence[Block], figures: Collection[str], folder: str, level: int) -> str:
    """Render blocks without a line break at the end; headings begin at ``level``. See :func:`to_markdown`."""
    return "\n\n".join(_Renderer(figures, folder).blocks(blocks, level))


def escape(text: str) -> str:
    """Return Markdown that shows ``text`` literally, in a paragraph and in a cell of a table."""
    text = re.sub(r"[&<>|]", lambda match: _ENTITIES[match[0]], _SPECIAL.sub(r"\\\g<0>", clean(text)))
    return text.replace("://", r":\//").replace("\n", "<br>")


class _Renderer:
    def __init__(self, figures: Collection[str], folder: str) -> None:
        self._figures = figures
        self._folder = folder

    def blocks(self, blocks: Sequence[Block], level: int) -> list[str]:
        return [text for block in blocks for text in self._block(block, level)]

    def _block(self, block: Block, level: int) -> list[str]:
        match block:
            case Paragraph():
                return [_inline(block.text)]
            case Note():
                return [f"> {_inline(block.text)}"]
            case Table():
                return [_table(block)]
            case Code():
                return [_fence(clean(block.text))]
            case Figure():
                return self._figure(block)
            case Section():
                return [f"{'#' * min(level, 6)} {_inline(block.title)}", *self.blocks(block.blocks, level + 1)]

    def _figure(self, figure: Figure) -> list[str]:
        caption = escape(figure.caption)
        if figure.name not in self._figures:
            return [f"> Figure left out: {caption}"]
        return [f"![{caption}]({self._folder}/{figure.name}.png)", f"*{caption}*"]


def _inline(text: Text) -> str:
    return "".join(_part(part) for part in parts_of(text))


def _part(part: Inline) -> str:
    match part:
        case Mono(text):
            # Backticks where they are safe, for who reads the source; else a tag, in which escapes work.
            safe = _SIMPLE_CODE.fullmatch(text) and text == clean(text) and "  " not in text
            return f"`{text}`" if safe else f"<code>{_with_hard_blanks(escape(text))}</code>"
        case Strong(text):
            return f"**{escape(text)}**"
        case str():
            return escape(part)


def _with_hard_blanks(text: str) -> str:
    """Replace blanks that Markdown would swallow: at the ends of lines, and several in a row."""
    return re.sub(r"(?:^|(?<=<br>)) +| {2,}| +(?=<br>|$)", lambda match: "&nbsp;" * len(match[0]), text.expandtabs(4))


def _table(table: Table) -> str:
    rows = [[column.title for column in table.columns], *table.rows]
    lines = ["| " + " | ".join(_inline(cell) for cell in row) + " |" for row in rows]
    return "\n".join([lines[0], _rule(table.columns), *lines[1:]])


def _rule(columns: Sequence[Column]) -> str:
    return "|" + "|".join("---:" if column.numeric else "---" for column in columns) + "|"


def _fence(text: str) -> str:
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"
