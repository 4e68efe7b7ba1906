"""Files of a run that cannot be read: deleted, overwritten, cut off."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clew.errors import UserError


class DamagedRun(UserError, ValueError):
    """A file of a run or a plan is gone or holds nonsense; a ValueError, as every reader of JSON expects one."""


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn whatever goes wrong when the body reads a file of a run into one clear error.

    Raises:
        DamagedRun: With the run and the file's name.
    """
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise DamagedRun(
            f"the run directory is damaged: {path.name} cannot be read ({reason})",
            where=path.parent.name,
            hint=f"bring {path.name} back from a copy, or delete the directory: {path.parent}",
        ) from error
