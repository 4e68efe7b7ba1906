"""What processes that crashed have left in a workspace: nobody reads it, and it takes space.

Everything that is written under a hidden name gets its own name when it is whole, and everything that is deleted gets a
hidden name first. So what still has such a name, and belongs to nobody who is alive, is rubbish.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clew.runs import Owner, Run, State, Workspace
from clew.runs.files import tree_bytes
from clew.runs.states import OWNED

GRACE_SECONDS = 3600.0
"""How old something must be whose maker is not known: he may be about to finish it."""
_IN_RUN = re.compile(r"\.(saving|trash|making|taking|pushing|merging)-.+|\..+\.tmp")
_MADE_BY = re.compile(r"\.new-.+-(\d+)|\.pushing-(\d+)-.+|\..+\.(\d+)(-[0-9a-f]+)?\.tmp|\.old-.+-(\d+)")
_KEPT = "kept"


@dataclass(frozen=True)
class Leftover:
    """Something that can go.

    Attributes:
        path: A file or a folder.
        what: What it was, for people.
        bytes: Its size; what is a second name of a file that stays frees nothing, and is counted all the same.
    """

    path: Path
    what: str
    bytes: int


def leftovers(workspace: Workspace, now: float) -> list[Leftover]:
    """Return what can go; runs that are alive, or may be alive elsewhere, look after themselves.

    Args:
        workspace: The workspace.
        now: Unix seconds.
    """
    found = [*_halves(workspace, now)]
    for run in workspace.list_runs():
        if run.state not in OWNED | {State.UNKNOWN}:
            found += _in_run(run)
            found += _unused_copies(run)
    return sorted(found, key=lambda one: one.path)


def remove(leftover: Leftover) -> None:
    """Delete it.

    Raises:
        OSError: If it cannot be.
    """
    if leftover.path.is_dir() and not leftover.path.is_symlink():
        shutil.rmtree(leftover.path)
    else:
        leftover.path.unlink(missing_ok=True)


def _halves(workspace: Workspace, now: float) -> Iterator[Leftover]:
    """Yield runs and models that never got their names."""
    wanted = {str(command.args.get("staging")) for run in workspace.list_runs() for command in run.inbox.peek()}
    for place in (workspace.runs, workspace.root / "models"):
        for path in place.glob(".*"):
            if path.name.startswith(".new-") and path.name not in wanted and _is_left(path, now):
                yield _leftover(path, "never finished")
            elif path.name.startswith(".old-") and _is_left(path, now) and _successor(path).exists():
                yield _leftover(path, "was replaced")


def _successor(path: Path) -> Path:
    """What has taken the place of ``.old-NAME-PID``; where nothing has, it is all that there is."""
    return path.with_name(path.name.removeprefix(".old-").rpartition("-")[0])


def _is_left(path: Path, now: float) -> bool:
    """Whether its maker is gone, as far as its name says who that was; or it is old enough."""
    match = _MADE_BY.fullmatch(path.name)
    pid = next(filter(None, match.groups()), None) if match else None
    if pid is not None and pid.isdigit() and len(pid) < 10:
        return not Owner.of(int(pid)).is_alive()
    return now - path.stat().st_mtime > GRACE_SECONDS


def _in_run(run: Run) -> Iterator[Leftover]:
    """Yield what attempts that crashed have left; nobody owns the run."""
    for path in _hidden(run.path, depth=3):
        match = _MADE_BY.fullmatch(path.name)
        pid = next((group for group in match.groups() if group and group.isdigit()), None) if match else None
        if pid is None or not Owner.of(int(pid)).is_alive():
            yield _leftover(path, "never finished" if not path.name.startswith(".trash-") else "half deleted")


def _hidden(folder: Path, depth: int) -> Iterator[Path]:
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if _IN_RUN.fullmatch(path.name):
            yield path
        elif depth > 1 and path.is_dir() and not path.is_symlink() and not path.name.startswith("step-"):
            yield from _hidden(path, depth - 1)


def _unused_copies(run: Run) -> Iterator[Leftover]:
    """Yield checkpoints that were kept for a command which then was not carried out (:mod:`clew.session.sources`)."""
    copies = [path for path in (run.path / _KEPT).glob("*") if path.is_dir()]
    if not copies or run.inbox.peek():
        return
    said = "\n".join(json.dumps(event, ensure_ascii=False) for event in run.events("command"))
    for path in copies:
        if path.name.startswith("."):
            yield _leftover(path, "never finished")
        elif json.dumps(path.name, ensure_ascii=False) not in said:
            yield _leftover(path, "a copy that no command uses")


def _leftover(path: Path, what: str) -> Leftover:
    return Leftover(path, what, tree_bytes(path) if not path.is_symlink() else 0)
