"""The pipe between a worker and its log: how it is laid, and how one knows that everything is through."""

from __future__ import annotations

import fcntl
import os
import secrets
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from clew.logs.filter import mark

_PROGRAM = "import sys; sys.path.insert(0, sys.argv[1]); from clew.logs.filter import main; main(int(sys.argv[2]))"
_POLL_SECONDS = 0.01
_SETTLE_SECONDS = 5.0


class LogPipe(NamedTuple):
    """The ends that a worker gets, and the filter behind them."""

    into: int
    """Descriptor to print to."""
    answers: int
    """Descriptor from which answers to marks are read."""
    filter: subprocess.Popen[bytes]


@contextmanager
def log_pipe(log: Path, environment: Mapping[str, str]) -> Iterator[LogPipe]:
    """Start a filter that appends to a log, and lend the ends for a worker; whoever inherits them keeps them open.

    The filter holds a lock on the log for as long as it runs, which :func:`wait_for_end` asks for.

    Args:
        log: The file.
        environment: What the filter learns the secrets from.
    """
    into_read, into = os.pipe()
    answers, answers_write = os.pipe()
    try:
        with log.open("ab") as stream:
            with suppress(OSError):  # a file system without locks: then nobody waits for the end
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            source = str(Path(__file__).parents[2])
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _PROGRAM, source, str(answers_write)],
                stdin=into_read,
                stdout=stream,
                stderr=subprocess.DEVNULL,
                pass_fds=(answers_write,),
                start_new_session=True,
                env=dict(environment),
            )
        yield LogPipe(into, answers, process)
    finally:
        for descriptor in (into_read, into, answers, answers_write):
            os.close(descriptor)


def wait_for_end(log: Path, seconds: float = 2.0) -> bool:
    """Wait until nothing more comes into a log; it takes its time when a process lives on that could print.

    Returns:
        Whether that is so.
    """
    deadline = time.monotonic() + seconds
    try:
        with log.open("rb") as stream:
            while True:
                try:
                    fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
                    return True
                except OSError:
                    if time.monotonic() >= deadline:
                        return False
                    time.sleep(_POLL_SECONDS)
    except FileNotFoundError:
        return True


class Printed:
    """What this process and its children have printed so far, as somebody sees it who wants to read the log.

    Args:
        answers: Descriptor from which the filter's answers are read; None when there is no filter.
    """

    def __init__(self, answers: int | None = None) -> None:
        self._answers = answers
        if answers is not None:
            os.set_inheritable(answers, False)

    def wait(self, seconds: float = _SETTLE_SECONDS) -> bool:
        """Wait until it is in the log; not for long, and not at all when the filter is gone.

        Returns:
            Whether that is so.
        """
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        if self._answers is None:
            return True
        nonce, deadline = secrets.token_hex(8), time.monotonic() + seconds
        if not _ready(2, select.POLLOUT, deadline):
            return False
        with suppress(OSError):  # nobody reads any more, which the answers show
            os.write(2, mark(nonce))
        return self._answered(self._answers, nonce.encode(), deadline)

    def _answered(self, answers: int, nonce: bytes, deadline: float) -> bool:
        said = b""
        while not said.endswith(nonce):
            if not _ready(answers, select.POLLIN, deadline):
                return False
            got = os.read(answers, 4096)
            if not got:
                return False
            said += got
        return True


def _ready(descriptor: int, event: int, deadline: float) -> bool:
    """Wait for a descriptor; unlike ``select``, this takes descriptors of any number."""
    poll = select.poll()
    poll.register(descriptor, event)
    return bool(poll.poll(max(0.0, deadline - time.monotonic()) * 1000))
