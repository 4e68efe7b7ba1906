"""A graph as text, as Mermaid (which forges and many editors draw), and as SVG."""

from __future__ import annotations

import re
from html import escape

from clew.plans.graph import Box, Graph

COLOURS = {
    "completed": ("#d7f0dd", "#2f8f4e"),
    "running": ("#d6e6fb", "#2667b8"),
    "failed": ("#fbdcdc", "#b82b2b"),
    "waiting": ("#fdeecb", "#b07908"),
    "interrupted": ("#fdeecb", "#b07908"),
    "stopped": ("#fdeecb", "#b07908"),
    "skipped": ("#f1f1f1", "#9a9a9a"),
}
"""State to fill and border; every other state is drawn like a stage that was not started."""
PLAIN = ("#ffffff", "#5c6670")

WIDTH, LINE, PADDING, GAP_X, GAP_Y, MARGIN = 190, 17, 10, 70, 26, 20
"""Sizes in pixels."""
_MAX_CHARACTERS = 26


def as_text(graph: Graph) -> str:
    """Return a line a stage, in an order in which they can run."""
    names = max(len(box.name) for box in graph.boxes)
    jobs = max(len(box.job) for box in graph.boxes)
    lines = [f"pipeline {graph.name}"]
    for box in graph.boxes:
        facts = [
            box.state,
            f"takes {', '.join(box.inputs)}" if box.inputs else "",
            f"after {', '.join(box.after)}" if box.after else "",
            f"if {box.when}" if box.when else "",
        ]
        lines.append(f"  {box.name:<{names}}  {box.job:<{jobs}}  {'; '.join(fact for fact in facts if fact)}".rstrip())
    return "\n".join(lines) + "\n"


def as_mermaid(graph: Graph) -> str:
    """Return a Mermaid flowchart: full arrows for outputs that are taken, dotted ones for mere order."""
    number = {box.name: f"s{index}" for index, box in enumerate(graph.boxes)}
    lines = ["flowchart LR"]
    for box in graph.boxes:
        colour = f":::{box.state}" if box.state in COLOURS else ""
        lines.append(f'  {number[box.name]}["{"<br/>".join(map(_coded, box.lines))}"]{colour}')
    for box in graph.boxes:
        lines += [f"  {number[name]} --> {number[box.name]}" for name in box.inputs]
        lines += [f"  {number[name]} -.-> {number[box.name]}" for name in box.after]
    used = {box.state for box in graph.boxes}
    lines += [
        f"  classDef {state} fill:{fill},stroke:{stroke}" for state, (fill, stroke) in COLOURS.items() if state in used
    ]
    return "\n".join(lines) + "\n"


def _coded(text: str) -> str:
    """Write everything that Mermaid could take for its own as a numbered entity."""
    return re.sub(r"[^A-Za-z0-9 ._:/,=-]", lambda match: f"#{ord(match[0])};", text)


def as_svg(graph: Graph) -> str:
    """Return an SVG picture, from left to right, without anything that must be loaded."""
    places = _places(graph)
    width = max(x for x, _ in places.values()) + WIDTH + MARGIN
    height = max(y + _height(box) for box, (_, y) in zip(graph.boxes, places.values(), strict=True)) + MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'role="img" font-family="system-ui, sans-serif" font-size="12">',
        f"<title>{escape(graph.name)}</title>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        f'<path d="M0 0L8 4L0 8z" fill="{PLAIN[1]}"/></marker></defs>',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    boxes = {box.name: box for box in graph.boxes}
    for box in graph.boxes:
        for name in (*box.inputs, *box.after):
            parts.append(_arrow(boxes[name], places[name], box, places[box.name], dashed=name in box.after))
    parts += [_drawn(box, *places[box.name]) for box in graph.boxes]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _places(graph: Graph) -> dict[str, tuple[int, int]]:
    """Upper left corners, in the order of the boxes; columns are centred."""
    heights = [sum(_height(box) + GAP_Y for box in column) - GAP_Y for column in graph.columns]
    found = {}
    for column, height in zip(graph.columns, heights, strict=True):
        y = MARGIN + (max(heights) - height) // 2
        for box in column:
            found[box.name] = (MARGIN + box.column * (WIDTH + GAP_X), y)
            y += _height(box) + GAP_Y
    return {box.name: found[box.name] for box in graph.boxes}


def _height(box: Box) -> int:
    return len(box.lines) * LINE + 2 * PADDING


def _arrow(source: Box, start: tuple[int, int], box: Box, end: tuple[int, int], *, dashed: bool) -> str:
    x1, y1 = start[0] + WIDTH, start[1] + _height(source) // 2
    x2, y2 = end[0], end[1] + _height(box) // 2
    bend = GAP_X // 2
    dash = ' stroke-dasharray="5 4"' if dashed else ""
    path = f"M{x1} {y1}C{x1 + bend} {y1} {x2 - bend} {y2} {x2} {y2}"
    return f'<path d="{path}" fill="none" stroke="{PLAIN[1]}" stroke-width="1.5"{dash} marker-end="url(#tip)"/>'


def _drawn(box: Box, x: int, y: int) -> str:
    fill, stroke = COLOURS.get(box.state, PLAIN)
    rows = []
    for index, line in enumerate(box.lines):
        weight = ' font-weight="600"' if index == 0 else f' fill="{stroke}"' if line == box.state else ""
        base = y + PADDING + (index + 1) * LINE - 4
        rows.append(f'<text x="{x + WIDTH // 2}" y="{base}" text-anchor="middle"{weight}>{escape(_cut(line))}</text>')
    frame = f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{_height(box)}" rx="7" fill="{fill}" stroke="{stroke}"/>'
    return f"<g><title>{escape(' | '.join(box.lines))}</title>{frame}{''.join(rows)}</g>"


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_CHARACTERS else f"{text[: _MAX_CHARACTERS - 1]}…"
