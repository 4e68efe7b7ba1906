"""What of a run is sent: a tree of links and copies beside the run, so that nothing changes while it travels.

The run itself lies below ``clew/``, laid out as in its directory. A model or an adapter stands at the top as well, as
those who know nothing of Clew expect it, with a card and with a base that can be found from elsewhere.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clew.checkpoints import Checkpoint, CheckpointStore
from clew.errors import UserError
from clew.remote.base import Base, base_of, with_base
from clew.remote.card import write_card
from clew.remote.manifest import Entry, Manifest
from clew.runs import Owner, Run

RUN_FOLDER = "clew"
RUN_FILES = ("run.json", "config.yaml", "origins.json", "result.json")
MODELS = ("adapter", "model")
_STAGING = ".pushing-"


@dataclass(frozen=True)
class Bundle:
    """A run as it is sent."""

    manifest: Manifest
    sources: Mapping[str, Path]
    base: Base | None
    """What the adapter that is sent stands on; None without one."""


def part_of(path: str) -> str:
    """Return which part of a run a path of the tree belongs to."""
    below = path.removeprefix(f"{RUN_FOLDER}/")
    if below == path or below.startswith("artifacts/"):
        return "artifacts"
    return "checkpoints" if below.startswith("checkpoints/") else "run"


@contextmanager
def bundle(run: Run, what: Sequence[str], *, base: str = "") -> Iterator[Bundle]:
    """Gather what is to be sent, in a folder that goes when the body ends.

    Args:
        run: Which run; it may be alive.
        what: Some of ``artifacts``, ``checkpoints`` and ``run``.
        base: What an adapter is to name as its base; empty takes what it was trained on.

    Raises:
        UserError: If there is nothing to send.
    """
    _clean(run)
    folder = run.path / f"{_STAGING}{os.getpid()}-{secrets.token_hex(3)}"
    folder.mkdir()
    try:
        found = base_of(run, base)
        # The checkpoint first: a journal that knows more than its checkpoint can be gone on with, not the reverse.
        steps = _take_checkpoints(run, folder / RUN_FOLDER) if "checkpoints" in what else []
        if "artifacts" in what:
            _take_artifacts(run, folder, found)
        if "run" in what:
            _take_run(run, folder / RUN_FOLDER)
        sources = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
        if not sources:
            raise UserError(f"there is nothing to send of its {' and '.join(what)}", where=run.id)
        about = _about(run, steps, found)
        sources["README.md"] = write_card(folder / "README.md", run, about, found)
        yield Bundle(Manifest({path: Entry.of(source) for path, source in sources.items()}, about), sources, found)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _take_checkpoints(run: Run, folder: Path) -> list[int]:
    """Link the newest checkpoint that verifies, and the best; return their steps, the newest first."""
    store = CheckpointStore(run.checkpoints)
    taken: list[int] = []
    for checkpoint in store.all():
        if _take_checkpoint(checkpoint, folder):
            taken.append(checkpoint.step)
            break
    best = store.best() if taken else None
    if best is not None and best.step not in taken and _take_checkpoint(best, folder):
        taken.append(best.step)
    return taken


def _take_checkpoint(checkpoint: Checkpoint, folder: Path) -> bool:
    """Link a checkpoint aside, so that its rotation cannot pull it away, and say whether it is whole there."""
    aside = folder / "checkpoints" / checkpoint.path.name
    try:
        shutil.copytree(checkpoint.path, aside, copy_function=link)
    except (FileNotFoundError, shutil.Error):  # it was rotated away meanwhile: there is a newer one
        shutil.rmtree(aside, ignore_errors=True)
        return False
    if Checkpoint(aside).problem():
        shutil.rmtree(aside)
        return False
    return True


def _take_artifacts(run: Run, folder: Path, base: Base | None) -> None:
    for path in sorted(run.artifacts.iterdir()):
        if not path.name.startswith("."):
            _take(path, folder / RUN_FOLDER / "artifacts" / path.name)
    for path in _shown(run):
        _take(path, folder / path.name)
    if base is not None:
        with_base(folder / "adapter_config.json", base)


def _shown(run: Run) -> list[Path]:
    """What is a model to other programs: the files of the adapter or the model, else those of GGUF."""
    for name in MODELS:
        if (run.artifacts / name).is_dir():
            return sorted(
                path for path in (run.artifacts / name).iterdir() if path.name not in ("README.md", RUN_FOLDER)
            )
    return sorted(run.artifacts.glob("*.gguf"))


def _take_run(run: Run, folder: Path) -> None:
    """Copy what may still grow; a torn last line of a journal is no harm."""
    (folder / "journal").mkdir(parents=True, exist_ok=True)
    for path in (run.path / name for name in RUN_FILES):
        if path.is_file():
            shutil.copyfile(path, folder / path.name)
    for path in sorted((run.path / "journal").glob("*.jsonl")):
        shutil.copyfile(path, folder / "journal" / path.name)


def _take(path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        shutil.copytree(path, target, copy_function=link)
    else:
        link(str(path), str(target))


def link(source: str, target: str) -> None:
    """Give a file that never changes a second name; a copy where the file system has none."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _about(run: Run, steps: Sequence[int], base: Base | None) -> dict[str, Any]:
    info, now = run.info, run.states.read()
    return {
        "run": info.id,
        "uid": info.uid,
        "job": info.job,
        "state": str(run.state),
        "reason": now.reason,
        "attempt": now.attempt,
        "step": steps[0] if steps else newest_step(run.checkpoints),
        "config_hash": info.config_hash,
        "base": base.name if base else None,
    }


def newest_step(checkpoints: Path) -> int:
    """Return the step of the newest checkpoint; 0 without one."""
    return next((checkpoint.step for checkpoint in CheckpointStore(checkpoints).all()), 0)


def _clean(run: Run) -> None:
    """Remove what pushes left behind that were killed."""
    for path in run.path.glob(f"{_STAGING}*"):
        pid = path.name.removeprefix(_STAGING).partition("-")[0]
        if pid.isdigit() and not Owner.of(int(pid)).is_alive():
            shutil.rmtree(path, ignore_errors=True)
