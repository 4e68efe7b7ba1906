"""A disk that is full: how that is known, and a reserve that lets a run say so all the same."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

RESERVE_BYTES = 256 << 10
"""More than a result with the last lines of a log, and a state, take."""

_FULL = (errno.ENOSPC, errno.EDQUOT)
_STREAM_WORDS = ("iostream error", "PytorchStreamWriter failed writing")
"""All that torch.save says of a file that cannot be written, whatever the reason; seen with torch 2.13."""
_WORDS = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT))


def is_full(error: BaseException) -> bool:
    """Say whether an error, or what led to it, means that there is no space left.

    Libraries that write through Rust or C++ raise errors of their own, which only the system's words tell.
    """
    return any(
        (isinstance(cause, OSError) and cause.errno in _FULL) or any(word in str(cause) for word in _WORDS)
        for cause in _causes(error)
    )


def explained(error: BaseException, text: str) -> str:
    """Return the text of an error, with what it means in front where that is a full disk."""
    if is_full(error):
        return f"the disk is full ({text}); make space before you go on"
    if any(word in str(cause) for cause in _causes(error) for word in _STREAM_WORDS):
        return f"a file could not be written, most likely because the disk is full ({text})"
    return text


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


class Reserve:
    """Some space that a live run keeps, to give it up when its end must be written.

    Args:
        run_folder: The run's directory.
    """

    def __init__(self, run_folder: Path) -> None:
        self._path = run_folder / ".reserve"

    def take(self) -> None:
        """Occupy the space; without any left the run will find that out soon enough."""
        with suppress(OSError), self._path.open("wb") as stream:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(stream.fileno(), 0, RESERVE_BYTES)
            else:
                stream.write(bytes(RESERVE_BYTES))

    def give_up(self) -> None:
        """Free the space."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)
