"""Checkpoints that count no longer, since their run has gone back to an earlier one: kept, and out of the way.

They lie in the run's folder ``aside/ATTEMPT/``, by the attempt that went back. Nobody goes on from them, and nothing
deletes them but ``clew gc``, which says so first, and only once the run has saved a good checkpoint on its new way.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from clew.checkpoints.leftovers import Leftover
from clew.checkpoints.store import TAGS, CheckpointStore
from clew.runs import Run, State, Workspace
from clew.runs.files import sync_directory, tree_bytes, write_json
from clew.runs.states import OWNED

FOLDER = "aside"
_KEPT = "kept"


def set_aside(run: Run, step: int, attempt: int) -> str:
    """Move what was saved after a step out of the way: checkpoints, copies of them, and their tags.

    The newest goes first: whenever this is cut short, what is left is a run that has not come quite so far.

    Args:
        run: The run.
        step: What was saved up to here stays.
        attempt: Number of the attempt, which the calling process has claimed.

    Returns:
        Where it lies now, relative to the run; empty when there was nothing.

    Raises:
        Fenced: When another attempt has taken the run over.
    """
    store = CheckpointStore(run.checkpoints)
    later = [*(one.path for one in store.all() if one.step > step), *_copies(run, step)]
    place = run.path / FOLDER / str(attempt)
    if later:
        place.mkdir(parents=True, exist_ok=True)
        sync_directory(run.path)
        sync_directory(place.parent)
    for path in later:
        with run.states.holding(attempt):
            path.rename(place / path.name)
        sync_directory(path.parent)
    if later:
        sync_directory(place)
    _untag(run, store, step, place)
    return str(place.relative_to(run.path)) if place.is_dir() else ""


def _copies(run: Run, step: int) -> list[Path]:
    """What commands after that step have kept of this run's own checkpoints: other ones may get these names."""
    found = [path for path in (run.path / _KEPT).glob("@*") if path.name[1:].isdigit()]
    return [path for path in found if int(path.name[1:]) > step]


def _untag(run: Run, store: CheckpointStore, step: int, place: Path) -> None:
    tags = store.tags()
    stay = {name: at for name, at in tags.items() if at <= step}
    if stay == tags:
        return
    if place.is_dir():
        write_json(place / TAGS, {name: at for name, at in tags.items() if at > step})
    write_json(run.checkpoints / TAGS, stay)


def left_aside(workspace: Workspace) -> Iterator[Leftover]:
    """Yield what was set aside and can go: its run has saved a good checkpoint since, and nobody works on it."""
    for run in workspace.list_runs():
        places = [path for path in (run.path / FOLDER).glob("*") if path.name.isdigit()]
        if not places or run.state in OWNED | {State.UNKNOWN}:
            continue
        good = CheckpointStore(run.checkpoints).newest_good()[0]
        for path in places:
            if good is not None and good.manifest.attempt >= int(path.name):
                yield Leftover(path, "set aside when the run went back", tree_bytes(path))
