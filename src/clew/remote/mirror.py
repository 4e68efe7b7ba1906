"""The checkpoints of a run that another place has too: fetched back by content, only as far as they differ."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from clew.checkpoints import Checkpoint
from clew.checkpoints.counted import counted_checkpoints
from clew.checkpoints.store import STAGING, TRASH
from clew.config.source import read_file
from clew.config.tree import plain
from clew.errors import UserError
from clew.remote.bundle import RUN_FOLDER, link
from clew.remote.errors import DamagedCopy, RemoteError, patiently
from clew.remote.location import Head, Location, fetch_checked, open_location
from clew.remote.manifest import Entry
from clew.runs import Run
from clew.runs.files import file_digest, sync_directory, sync_tree
from clew.session.lifecycle import Fetched

_BELOW = f"{RUN_FOLDER}/checkpoints/"


@dataclass(frozen=True)
class Restored:
    """What came of a restoration."""

    steps: tuple[int, ...]
    """The checkpoints that were missing or damaged here, and are whole now."""
    bytes: int
    """Their size."""
    fetched: int
    """As much of it as was not here already."""


def mirror_of(run: Run) -> str:
    """Return the URL of the place to which a run's checkpoints go, by its config; empty when there is none."""
    return fetches_from(run) or _said(run, "push", "to")


def fetches_from(run: Run) -> str:
    """Return the URL from which an attempt fetches a checkpoint when none here is good; empty when from nowhere.

    It is the mirror alone: a push may leave checkpoints out, or come at the end only.
    """
    return _said(run, "checkpoint", "mirror")


def _said(run: Run, section: str, key: str) -> str:
    values = plain(read_file(run.config_path, "run")).get(section)
    url = values.get(key) if isinstance(values, dict) else ""
    return str(url or "").replace("{run}", run.id)


def restore(run: Run, url: str) -> Restored:
    """Fetch the checkpoints that are there and are missing or damaged here, and still count.

    Args:
        run: The run; nobody may be working on it.
        url: A location to which it was pushed.

    Raises:
        UserError: If another run is there, or none.
        RemoteError: If it cannot be fetched, or something does not match its hash.
    """
    location = open_location(url)
    head, steps = _there(location, run)
    wanted = {name: files for name, files in steps.items() if _is_missing(run, name) and _counts(run, name)}
    here = _contents(run.path, {entry.bytes for files in wanted.values() for entry in files.values()})
    fetched, counted = 0, counted_checkpoints(run)
    for name, files in wanted.items():
        first = counted.get(Checkpoint(run.checkpoints / name).step, 0)
        fetched += _take(location, head, run, name, files, here, first=first)
    sizes = sum(map(_size, wanted.values()))
    return Restored(tuple(sorted(Checkpoint(run.checkpoints / name).step for name in wanted)), sizes, fetched)


def bring_back(run: Run, attempt: int, steps: Mapping[int, int]) -> Fetched | None:
    """Fetch the newest checkpoint that the run's mirror has whole, for an attempt that found none here.

    Args:
        run: The run.
        attempt: The attempt, which must still be the present one when the checkpoint gets its name.
        steps: Of the checkpoints that still count; to each the first attempt whose copy will do.

    Returns:
        What was fetched; None where the run's config names no mirror.

    Raises:
        RemoteError: If the mirror cannot be asked, or has none of them whole; nothing has changed then.
        UserError: If another run is there, or none.
        Fenced: If another attempt has taken over.
    """
    url = fetches_from(run)
    if not url:
        return None
    try:
        return _newest(open_location(url), run, attempt, steps)
    except (RemoteError, UserError) as error:
        what = f"no checkpoint here can be used, and none can be fetched: {error.what}"
        hint = f"nothing was changed; clew resume {run.id} tries it again, with checkpoint.mirror=URL at another place"
        raise type(error)(what, where=error.where or url, hint=hint) from error


def _newest(location: Location, run: Run, attempt: int, steps: Mapping[int, int]) -> Fetched:
    head, there = _there(location, run)
    wanted = {step: name for name in there if (step := Checkpoint(run.checkpoints / name).step) in steps}
    if not wanted:
        raise UserError("none of this run's checkpoints are there", where=location.url)
    here = _contents(run.path, {entry.bytes for name in wanted.values() for entry in there[name].values()})
    damage = None
    for step in sorted(wanted, reverse=True):
        files = there[wanted[step]]
        try:
            fence = partial(run.states.holding, attempt)
            fetched = _take(location, head, run, wanted[step], files, here, fence=fence, first=steps[step])
        except DamagedCopy as error:
            damage = damage or error
        else:
            return Fetched(step, location.url, _size(files), fetched)
    assert damage is not None, "what is not returned was damaged"
    raise damage


def _there(location: Location, run: Run) -> tuple[Head, dict[str, dict[str, Entry]]]:
    """Return the newest state of a run's location, and the files of each checkpoint in it."""
    head = patiently(location.head)
    if head is None or head.manifest is None:
        raise UserError("there is nothing there, or nothing that may be seen", where=location.url)
    if head.manifest.about.get("uid") != run.info.uid:
        raise UserError(f"another run is there: {head.manifest.about.get('run')}", where=location.url)
    return head, _steps(head.manifest.files)


def _size(files: Mapping[str, Entry]) -> int:
    return sum(entry.bytes for entry in files.values())


def _steps(files: Mapping[str, Entry]) -> dict[str, dict[str, Entry]]:
    """Return the files of each checkpoint, by the name of its folder."""
    found: dict[str, dict[str, Entry]] = {}
    for path, entry in files.items():
        name, _, inner = path.removeprefix(_BELOW).partition("/")
        if path.startswith(_BELOW) and inner and name.removeprefix("step-").isdigit():
            found.setdefault(name, {})[inner] = entry
    return found


def _is_missing(run: Run, name: str) -> bool:
    return bool(Checkpoint(run.checkpoints / name).problem())


def _counts(run: Run, name: str) -> bool:
    """Whether a checkpoint is not of a course that the run has left, when it went back to an earlier one."""
    step = Checkpoint(run.checkpoints / name).step
    left = any(event["to"] < step for event in run.events("went_back"))
    return not left or any(event["step"] == step for event in run.events("checkpoint"))


def _contents(folder: Path, sizes: set[int]) -> dict[Entry, Path]:
    """Return files of a run by content; only those of which one of the sizes is wanted are read."""
    found: dict[Entry, Path] = {}
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and (size := path.stat().st_size) in sizes:
            found[Entry(file_digest(path), size)] = path
    return found


def _take(
    location: Location,
    head: Head,
    run: Run,
    name: str,
    files: Mapping[str, Entry],
    here: dict[Entry, Path],
    *,
    fence: Callable[[], AbstractContextManager[None]] = nullcontext,
    first: int = 0,
) -> int:
    """Put one checkpoint together beside its place, and verify it before it gets its name; return what was fetched.

    One of an earlier attempt than ``first`` is of another way that the run went.
    """
    run.checkpoints.mkdir(exist_ok=True)
    staging = run.checkpoints / f"{STAGING}{name}-{os.getpid()}"
    shutil.rmtree(staging, ignore_errors=True)
    final, fetched, new = run.checkpoints / name, 0, set[Entry]()
    aside = staging / name
    try:
        aside.mkdir(parents=True)
        for inner, entry in files.items():
            target = aside / inner
            target.parent.mkdir(parents=True, exist_ok=True)
            if entry in here:
                link(str(here[entry]), str(target))
                continue
            path = f"{_BELOW}{name}/{inner}"
            patiently(
                lambda path=path, entry=entry, target=target: fetch_checked(  # type: ignore[misc]
                    location, head, path, entry.digest, target
                )
            )
            here[entry], fetched = target, fetched + entry.bytes
            new.add(entry)
        if problem := Checkpoint(aside).problem():
            raise DamagedCopy(f"what is there is damaged: {problem}", where=location.url)
        if (attempt := Checkpoint(aside).manifest.attempt) < first:
            raise DamagedCopy(f"what is there is of attempt {attempt}, before the run was changed", where=location.url)
        sync_tree(aside)
        with fence():
            _swap(aside, final)
        here.update({entry: final / inner for inner, entry in files.items() if entry in new})
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return fetched


def _swap(aside: Path, final: Path) -> None:
    trash = final.with_name(f"{TRASH}{final.name}-{os.getpid()}")
    if final.exists():
        final.rename(trash)
    aside.rename(final)
    sync_directory(final.parent)
    shutil.rmtree(trash, ignore_errors=True)
