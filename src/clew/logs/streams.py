"""A worker's stdout and stderr: a run must not end because nobody takes its log any more."""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class _Lasting(io.FileIO):
    """A descriptor whose reader may leave: what is printed afterwards is lost, by whatever writes it."""

    def write(self, data: ReadableBuffer, /) -> int:
        """Write; when there is no reader any more, point stdout and stderr of the process to nowhere first."""
        view = memoryview(data).cast("B")
        try:
            done = 0
            while done < len(view):  # a signal can end a write to a full pipe before its end
                done += super().write(view[done:]) or 0
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            for descriptor in (1, 2):  # libraries and children print there without asking Python
                os.dup2(nowhere, descriptor)
            os.close(nowhere)
        return len(view)


def outlast_readers() -> None:
    """Replace ``sys.stdout`` and ``sys.stderr`` by streams that write at once and survive the end of their reader."""
    sys.stdout, sys.stderr = _open(1, "strict"), _open(2, "backslashreplace")


def _open(descriptor: int, errors: str) -> io.TextIOWrapper:
    raw = _Lasting(descriptor, "w", closefd=False)
    return io.TextIOWrapper(raw, encoding="utf-8", errors=errors, write_through=True)
