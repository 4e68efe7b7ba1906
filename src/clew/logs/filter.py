"""The filter process: everything that a worker and its children print goes through it into the log.

A process of its own, because it must go on when the worker is killed, and must never wait for it: a library that
writes while it holds the interpreter's lock would stand still before a thread that needs that lock to read.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import time

from clew.logs.redaction import Redactor
from clew.logs.stream import RedactedStream

HOLD_SECONDS = 1.0
"""How long the beginning of a line waits for its end."""
_CHUNK_BYTES = 1 << 16
_MARK = re.compile(rb"\x1eclew-mark:([0-9a-f]{16})\n")
_MARK_BYTES = 28


def mark(nonce: str) -> bytes:
    """Return what a worker prints to learn when all before it is in the log; it does not appear there itself.

    Args:
        nonce: 16 hexadecimal digits; the filter answers with them.
    """
    return f"\x1eclew-mark:{nonce}\n".encode()


class LogFilter:
    """Copies until the end of its input, which comes when the last process that could print is gone.

    Args:
        source: Descriptor of what was printed.
        log: Descriptor of the log, opened for appending.
        answers: Descriptor of a pipe that gets the nonces of marks.
        stream: Redacts.
    """

    def __init__(self, source: int, log: int, answers: int, stream: RedactedStream) -> None:
        self._source = source
        self._log = log
        self._answers = answers
        self._stream = stream
        self._raw = b""
        self._deadline: float | None = None

    def run(self) -> None:
        """Copy everything."""
        while True:
            patience = None if self._deadline is None else max(0.0, self._deadline - time.monotonic())
            if select.select([self._source], [], [], patience)[0]:
                data = os.read(self._source, _CHUNK_BYTES)
                if not data:
                    break
                self._take(data)
            if self._deadline is not None and time.monotonic() >= self._deadline:
                self._flush()
        self._write(self._stream.feed(self._raw) + self._stream.end())

    def _take(self, data: bytes) -> None:
        self._raw += data
        while found := _MARK.search(self._raw):
            self._write(self._stream.feed(self._raw[: found.start()]))
            self._raw = self._raw[found.end() :]
            self._flush()
            self._answer(found[1])
        cut = self._raw.rfind(b"\x1e", max(0, len(self._raw) - _MARK_BYTES))
        cut = cut if cut >= 0 else len(self._raw)  # the beginning of a mark waits for the rest
        self._write(self._stream.feed(self._raw[:cut]))
        self._raw = self._raw[cut:]
        if self._deadline is None and (self._stream.holds or self._raw):
            self._deadline = time.monotonic() + HOLD_SECONDS

    def _flush(self) -> None:
        """Write the beginning of a line as far as it holds no part of a secret."""
        self._deadline = None
        self._write(self._stream.flush())

    def _write(self, data: bytes) -> None:
        # A disk that is full loses the log; a filter that gave up would stop the worker at its next line.
        with contextlib.suppress(OSError):
            while data:
                data = data[os.write(self._log, data) :]

    def _answer(self, nonce: bytes) -> None:
        with contextlib.suppress(OSError):
            os.write(self._answers, nonce)


def main(answers: int) -> None:
    """Filter stdin into stdout; the secrets are those of the environment.

    Args:
        answers: Descriptor of the pipe for answers to marks.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # whoever is asked to end may still have something to say
    os.set_blocking(answers, False)
    LogFilter(0, 1, answers, RedactedStream(Redactor.of())).run()
