"""The last lines of a log that grows."""

from __future__ import annotations

import re
from collections import deque
from pathlib import Path

from clew.reports.formats import clean

LINES = 200
_BYTES = 1 << 16
_LONGEST = 500
# Colours and cursor movements (ECMA-48, control sequences), which a terminal would obey inside of our screen.
_SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")


class LogTail:
    """Reads what is new at the end of a file, and keeps the last lines. A file that is replaced is read anew."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._offset = 0
        self._rest = b""
        self._lines: deque[str] = deque(maxlen=LINES)

    def read(self, path: Path) -> tuple[str, ...]:
        """Return the last lines of a file, which may be another one than the last time.

        Args:
            path: The file; one that is not there has no lines.
        """
        if path != self._path:
            self._path, self._offset, self._rest = path, 0, b""
            self._lines.clear()
        try:
            with path.open("rb") as stream:
                new = self._new(stream.seek(0, 2))
                stream.seek(self._offset)
                self._take(stream.read(new))
        except OSError:
            pass  # it does not print, or not yet
        return tuple(self._lines)

    def _new(self, length: int) -> int:
        """How many bytes to read; of a long piece only its end is worth it."""
        if length - self._offset > _BYTES:
            self._offset, self._rest = length - _BYTES, b""
        return max(0, length - self._offset)

    def _take(self, chunk: bytes) -> None:
        self._offset += len(chunk)
        *whole, self._rest = (self._rest + chunk).split(b"\n")
        self._rest = self._rest[-_BYTES:]
        self._lines.extend(map(_shown, whole))


def _shown(line: bytes) -> str:
    """A line as a terminal would show it at last: what was printed over is gone, and nothing in it is obeyed."""
    text = _SEQUENCE.sub("", line.decode("utf-8", "replace")).rstrip("\r")
    return clean(text.rpartition("\r")[2].expandtabs(8))[:_LONGEST]
