"""The checkpoints of a run that another place has too: fetched back by content, only as far as they differ."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from clew.checkpoints import Checkpoint
from clew.checkpoints.store import STAGING, TRASH
from clew.config.source import read_file
from clew.config.tree import plain
from clew.errors import UserError
from clew.remote.bundle import RUN_FOLDER, link
from clew.remote.errors import RemoteError, patiently
from clew.remote.location import Head, Location, fetch_checked, open_location
from clew.remote.manifest import Entry
from clew.runs import Run
from clew.runs.files import file_digest, sync_directory, sync_tree

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
    said = plain(read_file(run.config_path, "run"))
    checkpoint, push = said.get("checkpoint"), said.get("push")
    url = checkpoint.get("mirror") if isinstance(checkpoint, dict) else ""
    url = url or (push.get("to") if isinstance(push, dict) else "")
    return str(url or "").replace("{run}", run.id)


def restore(run: Run, url: str) -> Restored:
    """Fetch the checkpoints that are there and are missing or damaged here.

    Args:
        run: The run; nobody may be working on it.
        url: A location to which it was pushed.

    Raises:
        UserError: If another run is there, or none.
        RemoteError: If it cannot be fetched, or something does not match its hash.
    """
    location = open_location(url)
    head = patiently(location.head)
    if head is None or head.manifest is None:
        raise UserError("there is nothing there, or nothing that may be seen", where=url)
    if head.manifest.about.get("uid") != run.info.uid:
        raise UserError(f"another run is there: {head.manifest.about.get('run')}", where=url)
    wanted = {name: files for name, files in _steps(head.manifest.files).items() if _is_missing(run, name)}
    here = _contents(run.path, {entry.bytes for files in wanted.values() for entry in files.values()})
    fetched = 0
    for name, files in wanted.items():
        fetched += _take(location, head, run, name, files, here)
    sizes = sum(entry.bytes for files in wanted.values() for entry in files.values())
    return Restored(tuple(sorted(Checkpoint(run.checkpoints / name).step for name in wanted)), sizes, fetched)


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


def _contents(folder: Path, sizes: set[int]) -> dict[Entry, Path]:
    """Return files of a run by content; only those of which one of the sizes is wanted are read."""
    found: dict[Entry, Path] = {}
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and (size := path.stat().st_size) in sizes:
            found[Entry(file_digest(path), size)] = path
    return found


def _take(
    location: Location, head: Head, run: Run, name: str, files: Mapping[str, Entry], here: dict[Entry, Path]
) -> int:
    """Put one checkpoint together beside its place, and verify it before it gets its name; return what was fetched."""
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
            raise RemoteError(f"what is there is damaged: {problem}", where=location.url)
        sync_tree(aside)
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
