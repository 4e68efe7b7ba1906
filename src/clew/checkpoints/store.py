"""Checkpoints on disk: written whole or not at all, verified before they are trusted.

The order of a save: a hidden folder, its files, their hashes in ``manifest.json`` (last), a sync of everything, one
rename, a sync of the parent. A crash leaves either the whole checkpoint or a hidden folder that nobody reads.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from clew.errors import UserError
from clew.runs.files import file_digest, read_json, sync_directory, sync_tree, write_json

MANIFEST = "manifest.json"
TAGS = "tags.json"
_PREFIX = "step-"
_TAG = re.compile(r"(?=.*[A-Za-z])[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_RESERVED = ("best", "last")


def check_tag(name: object) -> None:
    """Check that a checkpoint may have this name.

    Raises:
        UserError: If it is none, or means something already.
    """
    if not isinstance(name, str) or not _TAG.fullmatch(name) or name in _RESERVED:
        raise UserError(
            f"{name!r} cannot be a tag",
            hint=f"take letters, digits, '.', '_' and '-', with a letter among them, but not {' or '.join(_RESERVED)}",
        )


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint consists of."""

    step: int
    attempt: int
    files: dict[str, dict[str, int | str]]
    """Relative name to ``{"sha256", "bytes"}``."""
    metric: float | None = None
    """How good the state is, lower is better, such as the validation loss; None when it was not measured."""
    saved: float = field(default_factory=time.time)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint folder."""

    path: Path

    @property
    def step(self) -> int:
        """The number of finished steps."""
        return int(self.path.name.removeprefix(_PREFIX))

    @property
    def manifest(self) -> Manifest:
        """The manifest; raises OSError, ValueError or TypeError when it is missing or damaged."""
        return Manifest(**read_json(self.path / MANIFEST))

    def problem(self) -> str:
        """Verify every file against the manifest and return what is wrong, or an empty string."""
        try:
            manifest = self.manifest
        except (OSError, ValueError, TypeError, AttributeError):
            return f"{MANIFEST} is missing or damaged"
        if manifest.step != self.step:
            return f"{MANIFEST} belongs to step {manifest.step}"
        present = {item.relative_to(self.path).as_posix() for item in self.path.rglob("*") if item.is_file()}
        if extra := sorted(present - set(manifest.files) - {MANIFEST}):
            return f"{extra[0]} is not in the manifest"
        for name, entry in manifest.files.items():
            if name not in present:
                return f"{name} is missing"
            if file_digest(self.path / name) != entry["sha256"]:
                return f"{name} does not match its hash"
        return ""


class CheckpointStore:
    """The checkpoints of one run.

    Args:
        folder: The run's ``checkpoints`` directory.
        attempt: The attempt that saves.
        fence: Called before each commit; raises when the attempt has been replaced.
    """

    def __init__(self, folder: Path, *, attempt: int = 0, fence: Callable[[], None] = lambda: None) -> None:
        self.folder = folder
        self._attempt = attempt
        self._fence = fence

    def all(self) -> list[Checkpoint]:
        """Return the committed checkpoints, the newest first; unverified."""
        found = [path for path in self.folder.glob(f"{_PREFIX}*") if path.name.removeprefix(_PREFIX).isdigit()]
        return sorted((Checkpoint(path) for path in found), key=lambda item: item.step, reverse=True)

    def save(self, step: int, write: Callable[[Path], None], *, metric: float | None = None) -> Checkpoint:
        """Save a checkpoint and return it once it is durable.

        Args:
            step: The number of finished steps.
            write: Writes all files into the folder that it is given.
            metric: How good the state is, lower is better, if it was measured; one that is not finite says nothing.
        """
        final = self.folder / f"{_PREFIX}{step:08d}"
        staging = self.folder / f".saving-{step:08d}-{self._attempt}-{os.getpid()}"
        self._clean()
        staging.mkdir()
        try:
            write(staging)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)  # on a full disk others need the space
            raise
        names = sorted(item.relative_to(staging).as_posix() for item in staging.rglob("*") if item.is_file())
        files: dict[str, dict[str, int | str]] = {
            name: {"sha256": file_digest(staging / name), "bytes": (staging / name).stat().st_size} for name in names
        }
        rating = metric if metric is not None and math.isfinite(metric) else None
        write_json(staging / MANIFEST, asdict(Manifest(step, self._attempt, files, rating)))
        sync_tree(staging)
        self._fence()
        # A folder of that step can only be one that did not verify: otherwise the run would have gone on from it.
        replaced = self._move_aside(final) if final.exists() else None
        staging.rename(final)
        sync_directory(self.folder)
        if replaced:
            shutil.rmtree(replaced)
        return Checkpoint(final)

    def newest_good(self) -> tuple[Checkpoint | None, dict[int, str]]:
        """Return the newest checkpoint that verifies, and what was wrong with newer ones, by step."""
        bad: dict[int, str] = {}
        for checkpoint in self.all():
            if not (problem := checkpoint.problem()):
                return checkpoint, bad
            bad[checkpoint.step] = problem
        return None, bad

    def best(self) -> Checkpoint | None:
        """Return the verified checkpoint with the lowest metric; None when none carries one."""
        rated = sorted(self._rated(), key=lambda pair: pair[0])
        return next((checkpoint for _, checkpoint in rated if not checkpoint.problem()), None)

    def prune(self, keep_last: int) -> None:
        """Delete all but the newest ``keep_last``, the best and the tagged; called after a save: a good one stays."""
        keep = {checkpoint.step for checkpoint in self.all()[:keep_last]} | set(self.tags().values())
        if rated := self._rated():
            keep.add(min(rated, key=lambda pair: pair[0])[1].step)
        for checkpoint in self.all():
            if checkpoint.step not in keep:
                shutil.rmtree(self._move_aside(checkpoint.path))

    def tag(self, name: str, step: int) -> None:
        """Give the checkpoint of a step a name, under which it is kept for good; a name can move on to another one."""
        check_tag(name)
        self._fence()
        write_json(self.folder / TAGS, {**self.tags(), name: step})

    def tags(self) -> dict[str, int]:
        """Return the names that checkpoints have been given, with their steps; none when the file is damaged."""
        try:
            return {str(name): int(step) for name, step in read_json(self.folder / TAGS).items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}

    def _rated(self) -> list[tuple[float, Checkpoint]]:
        rated = []
        for checkpoint in self.all():
            try:
                metric = checkpoint.manifest.metric
            except (OSError, ValueError, TypeError, AttributeError):
                continue
            if metric is not None:
                rated.append((metric, checkpoint))
        return rated

    def _move_aside(self, path: Path) -> Path:
        """Give a checkpoint a hidden name before its deletion: half a deletion must not look like a checkpoint."""
        trash = path.with_name(f".trash-{path.name}-{os.getpid()}")
        path.rename(trash)
        return trash

    def _clean(self) -> None:
        """Remove what earlier crashes left behind."""
        for pattern in (".saving-*", ".trash-*"):
            for path in self.folder.glob(pattern):
                shutil.rmtree(path, ignore_errors=True)
