"""What can go wrong between here and elsewhere, and which of it is worth another try."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from clew.errors import ClewError

T = TypeVar("T")

TRIES = 4
FIRST_WAIT_SECONDS = 0.5


class RemoteError(ClewError):
    """A location refuses, or cannot be reached.

    Args:
        what: One sentence that says what is wrong.
        where: The location.
        hint: What the reader can do now.
        passing: Whether the same request may well succeed a little later.
    """

    def __init__(self, what: str, *, where: str = "", hint: str = "", passing: bool = False) -> None:
        super().__init__(what, where=where, hint=hint)
        self.passing = passing


class DamagedCopy(RemoteError):
    """What is there does not match its hash."""


class Conflict(RemoteError):
    """Somebody else has changed the location meanwhile."""


def patiently(ask: Callable[[], T], *, tries: int = TRIES, first_wait: float = FIRST_WAIT_SECONDS) -> T:
    """Ask again after a failure that may pass, waiting twice as long each time.

    Args:
        ask: What is to be done; it must be safe to do it twice.
        tries: How often it is tried in all.
        first_wait: Seconds before the second try.

    Raises:
        RemoteError: The last failure, or one that will not pass.
    """
    for number in range(tries - 1):
        try:
            return ask()
        except RemoteError as error:
            if not error.passing:
                raise
            time.sleep(first_wait * 2**number)
    return ask()
