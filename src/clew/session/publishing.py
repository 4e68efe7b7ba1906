"""Artifacts: made under a hidden name, and published whole by one rename."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clew.errors import UserError
from clew.runs import Artifact, Run
from clew.runs.files import path_inside, sync_directory, sync_tree, tree_bytes, tree_digest


@contextmanager
def published(run: Run, attempt: int, name: str) -> Iterator[Path]:
    """Give a path under which the body creates a file or folder; it is published when the body succeeds.

    Args:
        run: The run.
        attempt: The attempt that publishes.
        name: The artifact's name, which is that of a file or folder in ``artifacts/``.

    Raises:
        UserError: If the name is none, such as one that leads elsewhere.
        Fenced: If another attempt has taken the run over; nothing is published then.
    """
    final = path_inside(run.artifacts, name)
    if final.parent != run.artifacts or name.startswith("."):
        raise UserError(f"{name!r} cannot be the name of an artifact", hint="take one without '/' and no dot first")
    staging = run.artifacts / f".making-{name}"
    _remove(staging)
    try:
        yield staging
        sync_tree(staging)
    except BaseException:
        _remove(staging)
        raise
    with run.states.holding(attempt):
        _remove(final)
        staging.rename(final)
        sync_directory(final.parent)


def described(run: Run, name: str) -> Artifact:
    """Return what the result and the journal say of a published artifact: its place, its hash and its size."""
    final = run.artifacts / name
    return Artifact(final.relative_to(run.path).as_posix(), tree_digest(final), tree_bytes(final))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        trash = path.with_name(f".trash-{path.name}-{os.getpid()}")
        path.rename(trash)
        sync_directory(path.parent)  # or half of it may be back under its name when the power goes
        shutil.rmtree(trash)
    else:
        path.unlink(missing_ok=True)
