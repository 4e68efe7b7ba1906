"""Takes secrets out of texts: those that are known by value, and what looks like one."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping

from clew.logs.patterns import KEY_BLOCK, PATTERNS
from clew.logs.secrets import secret_values, spellings

TYPE_CHECKING = False  # what `typing` calls it; importing that module would slow the filter process down
if TYPE_CHECKING:
    from typing import Any

PLACEHOLDER = "[redacted]"

Span = tuple[int, int]


class Redactor:
    """Replaces secrets by :data:`PLACEHOLDER`. Doing it again changes nothing.

    Args:
        values: Secrets. Those below :data:`~clew.logs.secrets.MIN_LENGTH`, and any that contain the placeholder
            itself, are left out.
    """

    def __init__(self, values: Iterable[str] = ()) -> None:
        found = {spelling for value in values for spelling in spellings(value) if PLACEHOLDER not in spelling}
        self.values = sorted(found)

    @classmethod
    def of(cls, environment: Mapping[str, str] | None = None, names: Iterable[str] = ()) -> Redactor:
        """Return one that knows the secrets of an environment; None means that of this process.

        Args:
            environment: Variables and their values.
            names: Variables that hold a secret whatever they are called.
        """
        return cls(secret_values(os.environ if environment is None else environment, names))

    def text(self, text: str) -> str:
        """Return a text without its secrets."""
        # What was taken out can bring to light what its neighbour hid; each round leaves less.
        while (less := PLACEHOLDER.join(map(self._part, text.split(PLACEHOLDER)))) != text:
            text = less
        return text

    def tree(self, value: Any) -> Any:
        """Return what JSON can hold with all its texts redacted; the names of its fields stay."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {key: self.tree(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.tree(item) for item in value]
        return value

    def matches(self, text: str) -> Iterator[tuple[Span, Span]]:
        """Yield each secret in a text: where it is, and where what shows it to be one is."""
        for value in self.values:
            at = text.find(value)
            while at >= 0:
                yield (at, at + len(value)), (at, at + len(value))
                at = text.find(value, at + 1)
        lowered = text.lower()
        for triggers, pattern in PATTERNS:
            if any(trigger in lowered for trigger in triggers):
                for match in pattern.finditer(text):
                    yield (
                        match.span(match.lastindex if pattern is not KEY_BLOCK and match.lastindex else 0),
                        match.span(),
                    )

    def unfinished(self, text: str) -> int:
        """Return where the first secret begins that goes on after the end of a text, if it does; else its length."""
        starts = [len(text) - _overlap(text, value) for value in self.values]
        block = KEY_BLOCK.match(text, max(0, text.rfind("-----BEGIN ")))
        if block and not block["end"] and len(text[block.end() :].lstrip("\r\n").splitlines()) <= 1:
            starts.append(block.start())  # its next line may be its end
        return min(starts, default=len(text))

    def _part(self, text: str) -> str:
        pieces, done = [], 0
        for start, end in merged(secret for secret, _ in self.matches(text)):
            pieces += [text[done:start], PLACEHOLDER]
            done = end
        return "".join([*pieces, text[done:]])


def _overlap(text: str, value: str) -> int:
    """Return the length of the longest beginning of a value, short of all of it, with which a text ends."""
    if not text or text[-1] not in value:
        return 0
    longest = min(len(value) - 1, len(text))
    return next((length for length in range(longest, 0, -1) if text.endswith(value[:length])), 0)


def merged(spans: Iterable[Span]) -> list[Span]:
    """Join what overlaps or touches: of two secrets that overlap, nothing must be left."""
    joined: list[Span] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined
