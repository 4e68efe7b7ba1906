"""Redaction of what comes in pieces: no secret passes, wherever it was cut."""

from __future__ import annotations

import codecs
import re

from clew.logs.redaction import PLACEHOLDER, Redactor, merged

LIMIT = 1 << 16
"""Characters that are held back at most, however long a line is."""
_BEGUN = re.compile(
    r"(?:(?:authorization|passw\w*|passphrase|\w*key|\w*secret|\w*token)[\"']?[ \t]*[:=]?[ \t]*[\"']?)?"
    r"(?:bearer|basic|token)?[ \t]*\Z"
    r"|-----BEGIN[A-Z0-9 ]*\Z",
    re.IGNORECASE,
)
"""What stands before the last word of a line where a pattern may take both."""
_CONTEXT = 100


class RedactedStream:
    """Takes bytes as they come and gives them back redacted, by whole lines where nothing forbids it.

    Args:
        redactor: Finds the secrets.
    """

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._held = ""
        self._dropping = False
        self._limit = max(LIMIT, 4 * max(map(len, redactor.values), default=0))

    @property
    def holds(self) -> bool:
        """Whether something waits for what follows."""
        return bool(self._held)

    def feed(self, data: bytes) -> bytes:
        """Take the next piece, and return what can be told by now: lines that have ended (``\\r`` ends one, too)."""
        self._held += self._received(self._decoder.decode(data))
        out = self._give(self._settled(_line_start(self._held, len(self._held)), by_line=True))
        while len(self._held) > self._limit:
            out += self._shorten()
        return out

    def flush(self) -> bytes:
        """Return what can be told of a line that has not ended: all but its last word and what belongs to it."""
        end = max(self._held.rfind(blank) for blank in " \t\r\n") + 1
        before = max(0, end - _CONTEXT)
        begun = _BEGUN.search(self._held[before:end])
        return self._give(self._settled(before + begun.start() if begun else end))

    def end(self) -> bytes:
        """Return the rest: nothing follows."""
        self._held += self._received(self._decoder.decode(b"", final=True))
        return self._give(len(self._held))

    def _received(self, text: str) -> str:
        """Leave out the rest of a line whose beginning was dropped."""
        if self._dropping:
            ends = [at for at in (text.find("\n"), text.find("\r")) if at >= 0]
            self._dropping = not ends
            return text[min(ends) :] if ends else ""
        return text

    def _settled(self, wanted: int, *, by_line: bool = False) -> int:
        """Return the last place, up to a wanted one, that lies in no secret, be it whole or begun."""
        if not wanted:
            return 0
        cut = min(wanted, self._redactor.unfinished(self._held))
        for start, end in reversed(merged(whole for _, whole in self._redactor.matches(self._held))):
            cut = _line_start(self._held, cut) if by_line else cut
            cut = start if start < cut < end else cut
        return _line_start(self._held, cut) if by_line else cut

    def _give(self, end: int) -> bytes:
        text, self._held = self._held[:end], self._held[end:]
        return self._redactor.text(text).encode("utf-8", "surrogateescape")

    def _shorten(self) -> bytes:
        """Give up the beginning of an endless line; if that is an endless secret, drop the line."""
        cut = self._settled(len(self._held) - self._limit // 2)
        if not cut:
            self._held, self._dropping = "", True
            return PLACEHOLDER.encode()
        return self._give(cut)


def _line_start(text: str, end: int) -> int:
    return max(text.rfind("\n", 0, end), text.rfind("\r", 0, end)) + 1
