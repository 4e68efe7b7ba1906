"""A text whose worst tokens are marked: by colour in a terminal, by « and » elsewhere."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from clew.cli.text import is_terminal

_SHARE = 0.1
"""Of a sample's targets so many are marked, at least one."""
_INDENT = "  "

Piece = tuple[str, bool]


def marked(text: str, tokens: Sequence[str], losses: Sequence[float]) -> list[Piece]:
    """Cut a text into pieces, and say which are its worst tokens.

    The tokens are those targets whose loss is among the highest tenth, at least one. They are found in the text where
    it holds all targets one after another, the last such place. Where it does not (it was cut, or a token has no text
    of its own), the targets follow the text in square brackets.

    Args:
        text: The sample.
        tokens: Its targets as text, in their order.
        losses: One for each of them.

    Returns:
        Pieces of text, each with whether it is marked.
    """
    if not tokens:
        return [(text, False)]
    whole = "".join(tokens)
    place = text.rfind(whole)
    pieces = list(_pieces(tokens, losses))
    if place < 0 or not whole:
        return _joined([(f"{text} [", False), *pieces, ("]", False)])
    return _joined([(text[:place], False), *pieces, (text[place + len(whole) :], False)])


def _pieces(tokens: Sequence[str], losses: Sequence[float]) -> Iterator[Piece]:
    known = [place for place, loss in enumerate(losses) if not math.isnan(loss)]
    worst = sorted(known, key=lambda place: (-losses[place], place))[: max(1, int(_SHARE * len(known)))]
    yield from ((token, place in worst) for place, token in enumerate(tokens))


def _joined(pieces: Sequence[Piece]) -> list[Piece]:
    """The same, with neighbours that are not marked as one piece, and without empty ones."""
    found: list[Piece] = []
    for piece, mark in pieces:
        if found and not mark and not found[-1][1]:
            found[-1] = (found[-1][0] + piece, False)
        elif piece:
            found.append((piece, mark))
    return found


def print_marked(text: str, tokens: Sequence[str], losses: Sequence[float]) -> None:
    """Print a text with its worst tokens marked, indented."""
    pieces = marked(text, tokens, losses)
    if not is_terminal():
        shown = "".join(f"«{piece}»" if mark else piece for piece, mark in pieces)
        print("\n".join(f"{_INDENT}{line}" for line in shown.splitlines()))
        return
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    styled = Text.assemble(*((piece, "bold red reverse" if mark else "") for piece, mark in pieces))
    Console(highlight=False).print(Padding(styled, (0, 0, 0, len(_INDENT))))
