"""Renders a document as one HTML page that loads nothing from anywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape as escape_html

from clew.reports.document import (
    Block,
    Code,
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

_STYLE = """\
:root { color-scheme: light dark; --ink: #1b2129; --paper: #fdfdfc; --soft: #5d6673; --line: #d9dde3; --tint: #f2f4f7; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e3e7ed; --paper: #14181d; --soft: #9aa5b3; --line: #343c47; --tint: #1e242c; }
}
body { margin: 0 auto; max-width: 62rem; padding: 2rem 1.25rem 4rem; color: var(--ink); background: var(--paper);
  font: 16px/1.55 system-ui, sans-serif; }
h1, h2, h3 { line-height: 1.25; } h1 { margin-top: 0; }
h2 { margin-top: 2.5rem; padding-bottom: .25rem; border-bottom: 1px solid var(--line); }
.table { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; }
th, td { padding: .35rem .75rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
th { color: var(--soft); font-weight: 600; } .number { text-align: right; font-variant-numeric: tabular-nums; }
td { white-space: pre-line; } td.number { white-space: nowrap; }
code, pre { font: .86em/1.45 ui-monospace, monospace; background: var(--tint); border-radius: 4px; }
code { padding: .1em .3em; white-space: pre-wrap; overflow-wrap: anywhere; }
pre { padding: .75rem 1rem; overflow-x: auto; }
.note { color: var(--soft); border-left: 3px solid var(--line); padding-left: .75rem; }
figure { margin: 1.25rem 0; overflow-x: auto; } figure svg { max-width: 100%; height: auto; }
figcaption { color: var(--soft); font-size: .875rem; }
"""
_HEAD = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
"""


def to_html(document: Document, figures: Mapping[str, str]) -> str:
    """Render a document.

    Args:
        document: The report.
        figures: SVG elements by the names of the figures that could be drawn.
    """
    body = f"<h1>{escape(document.title)}</h1>\n{blocks_to_html(document.blocks, figures, 2)}"
    return page(document.title, body)


def page(title: str, body: str) -> str:
    """Return a whole page around the HTML of its body; it may load nothing and run nothing."""
    return _HEAD.format(title=escape(title), style=_STYLE) + body + "\n</body>\n</html>\n"


def blocks_to_html(blocks: Sequence[Block], figures: Mapping[str, str], level: int) -> str:
    """Render blocks; headings begin at ``level``. See :func:`to_html`."""
    return "\n".join(_Renderer(figures).blocks(blocks, level))


def escape(text: str) -> str:
    """Return HTML that shows ``text`` literally, in an element and in an attribute."""
    return escape_html(clean(text))


class _Renderer:
    def __init__(self, figures: Mapping[str, str]) -> None:
        self._figures = figures

    def blocks(self, blocks: Sequence[Block], level: int) -> list[str]:
        return [text for block in blocks for text in self._block(block, level)]

    def _block(self, block: Block, level: int) -> list[str]:
        match block:
            case Paragraph():
                return [f"<p>{_inline(block.text)}</p>"]
            case Note():
                return [f'<p class="note">{_inline(block.text)}</p>']
            case Table():
                return _table(block)
            case Code():
                # A parser drops a line break right after <pre>, so there is always one to drop.
                return [f"<pre>\n{escape(block.text)}</pre>"]
            case Figure():
                return self._figure(block)
            case Section():
                tag = f"h{min(level, 6)}"
                title = f"<{tag}>{_inline(block.title)}</{tag}>"
                return ["<section>", title, *self.blocks(block.blocks, level + 1), "</section>"]

    def _figure(self, figure: Figure) -> list[str]:
        caption = escape(figure.caption)
        if figure.name not in self._figures:
            return [f'<p class="note">Figure left out: {caption}</p>']
        return [
            f'<figure role="img" aria-label="{caption}">',
            self._figures[figure.name].strip(),
            f"<figcaption>{caption}</figcaption>",
            "</figure>",
        ]


def _inline(text: Text) -> str:
    return "".join(_part(part) for part in parts_of(text))


def _part(part: Inline) -> str:
    match part:
        case Mono(text):
            return f"<code>{escape(text)}</code>"
        case Strong(text):
            return f"<strong>{escape(text)}</strong>"
        case str():
            return escape(part)


def _table(table: Table) -> list[str]:
    places = [' class="number"' if column.numeric else "" for column in table.columns]
    head = [f"<th{place}>{_inline(column.title)}</th>" for place, column in zip(places, table.columns, strict=True)]
    lines = ['<div class="table"><table>', f"<thead><tr>{''.join(head)}</tr></thead>", "<tbody>"]
    for row in table.rows:
        cells = (f"<td{place}>{_inline(cell)}</td>" for place, cell in zip(places, row, strict=True))
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return [*lines, "</tbody></table></div>"]
