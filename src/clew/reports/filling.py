"""Fills a template: as Markdown, and as the same in HTML.

Both come from one reading of the template, in which each placeholder is a word that stands nowhere else. So Markdown's
rules are settled before any data is there, and what is put in is never read again: not as Markdown, not as HTML, and
not as a placeholder.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clew.errors import require
from clew.reports import html, markdown
from clew.reports.document import Figure, figures_of
from clew.reports.formats import clean
from clew.reports.placeholders import Filling, fill, is_block
from clew.reports.subject import Pending, Subject, Unknown
from clew.reports.template import Placeholder, Problem, Template

if TYPE_CHECKING:
    from markdown_it.token import Token

_REST_OF_LINE = re.compile(r"[ \t]*(\r?\n|\Z)")


@dataclass(frozen=True)
class Place:
    """Where a placeholder came to stand, once the template was read as Markdown."""

    in_code: bool = False
    level: int = 2
    """Of headings below it."""


class Filled:
    """A template with what its placeholders become.

    Args:
        template: The template.
        subject: The run or pipeline.

    Raises:
        UserError: If a placeholder is unknown, asks for what does not exist, or stands where it cannot.
    """

    def __init__(self, template: Template, subject: Subject) -> None:
        parser = require("markdown_it", extra="report").MarkdownIt("commonmark", {"html": True})
        self._parser = parser.enable(["table", "strikethrough"])
        self._template = template
        self._word = _unused_word(template)
        self._pattern = re.compile(rf"{self._word}(\d+)x")
        self._tokens: list[Token] = self._parser.parse(_assemble(template, lambda at: f"{self._word}{at}x"))
        self._places = dict(self._find_places())
        self._fillings = self._fill(subject)

    @property
    def title(self) -> str:
        """Text of the first heading; empty without one."""
        for token, inline in zip(self._tokens, self._tokens[1:], strict=False):
            if token.type == "heading_open":
                text = "".join(child.content for child in inline.children or ())
                return self._pattern.sub(lambda found: str(self._fillings[int(found[1])]), text)
        return ""

    @property
    def figures(self) -> list[Figure]:
        """All figures, in their order."""
        blocks = [filling for filling in self._fillings if not isinstance(filling, str | Pending)]
        return [figure for some in blocks for figure in figures_of(some)]

    def to_markdown(self, figures: Collection[str], folder: str) -> str:
        """Return the Markdown; the arguments are those of :func:`clew.reports.markdown.to_markdown`."""

        def shown(at: int) -> str:
            filling, place = self._fillings[at], self._place(at)
            if not isinstance(filling, str | Pending):
                return markdown.blocks_to_markdown(filling, figures, folder, place.level)
            return _in_code(str(filling)) if place.in_code else markdown.escape(str(filling))

        return _assemble(self._template, shown)

    def to_html(self, figures: Mapping[str, str]) -> str:
        """Return the body of the page; the argument is that of :func:`clew.reports.html.to_html`."""

        def shown(found: re.Match[str]) -> str:
            at = int(found[1] or found[2])
            filling = self._fillings[at]
            if not isinstance(filling, str | Pending):
                return html.blocks_to_html(filling, figures, self._place(at).level)
            text = html.escape(str(filling))
            return f"<p>{text}</p>" if found[1] else text

        rendered = self._parser.renderer.render(self._tokens, self._parser.options, {})
        return re.sub(rf"<p>{self._pattern.pattern}</p>|{self._pattern.pattern}", shown, rendered)

    def _place(self, at: int) -> Place:
        return self._places.get(at, Place())

    def _find_places(self) -> Iterator[tuple[int, Place]]:
        level = Place.level
        for token in self._tokens:
            if token.type == "heading_open":
                level = int(token.tag[1:]) + 1
            for part in token.children or (token,):
                in_code = part.type in ("code_inline", "code_block", "fence")
                for found in self._pattern.finditer(part.content):
                    yield int(found[1]), Place(in_code, level)

    def _fill(self, subject: Subject) -> Sequence[Filling]:
        problems: list[Problem] = []
        fillings: list[Filling] = []
        for at, placeholder in enumerate(_placeholders(self._template)):
            try:
                if is_block(placeholder.name) and (not placeholder.alone or self._place(at).in_code):
                    raise Unknown("it becomes a table or a figure", "it needs a line of its own, outside of code")
                fillings.append(fill(placeholder.name, placeholder.argument, subject))
            except Unknown as error:
                problems.append(Problem(placeholder.line, f"{placeholder}: {error.what}", error.hint))
        self._template.refuse(problems)
        return fillings


def _placeholders(template: Template) -> list[Placeholder]:
    return [part for part in template.parts if isinstance(part, Placeholder)]


def _unused_word(template: Template) -> str:
    text = "".join(part for part in template.parts if isinstance(part, str))
    word = "clewfill"
    while word in text:
        word += "z"
    return word


def _assemble(template: Template, shown: Callable[[int], str]) -> str:
    """Put a template together; a block gets an empty line before and after it, where there is none.

    Args:
        template: The template.
        shown: Text of a placeholder, by its number.
    """
    text, at, after_block = "", 0, False
    for number, part in enumerate(template.parts):
        if isinstance(part, str):
            is_last = number + 1 == len(template.parts)
            text += _after_block(part, is_last=is_last) if after_block else part
            after_block = False
            continue
        after_block = is_block(part.name) and part.alone
        text += ("" if not after_block or _ends_blank(text) else "\n") + shown(at)
        at += 1
    return text


def _ends_blank(text: str) -> bool:
    ended = text.rstrip(" \t")
    return not ended or ended.endswith(("\n\n", "\n\r\n"))


def _after_block(text: str, *, is_last: bool) -> str:
    end = _REST_OF_LINE.match(text)
    rest = text[end.end() :] if end else text
    if (rest and not _REST_OF_LINE.match(rest)) or (not rest and not is_last):
        return f"{text[: len(text) - len(rest)]}\n{rest}"
    return text


def _in_code(text: str) -> str:
    """Return a value for inside of code, which it can neither end nor break into lines."""
    return clean(text).replace("`", "\\u0060").replace("\n", "\\u000a")
