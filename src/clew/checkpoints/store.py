"""Checkpoints on disk: written whole or not at all, verified before they are trusted.

The order of a save: a hidden folder, its files, their hashes in ``manifest.json`` (last), a sync of everything, one
rename, a sync of the parent. A crash leaves either the whole checkpoint or a hidden folder that nobody reads.
"""

from __future__ import annotations

import errno
import math
import os
import re
import shutil
from collections.abc import Callable, Set
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from clew.checkpoints.manifest import MANIFEST, Manifest, manifest_of, problem_in, read_manifest
from clew.checkpoints.retention import Retention, best_of, kept
from clew.errors import UserError
from clew.runs.files import read_json, sync_directory, sync_tree, write_atomically, write_json

TAGS = "tags.json"
STAGING, TRASH = ".saving-", ".trash-"
"""How the names of folders begin that no reader looks at: what is being written, and what is being deleted."""
_PREFIX = "step-"
_TAG = re.compile(r"(?=.*[A-Za-z])[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_RESERVED = ("best", "last")
_SPARE_BYTES = 64 << 10
"""Room that a save leaves to what is written besides, such as the journal."""


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


def folder_of(step: int) -> str:
    """Return the name of the folder of a step's checkpoint."""
    return f"{_PREFIX}{step:08d}"


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
        """The manifest; raises OSError or ValueError when it is missing or damaged."""
        return read_manifest(self.path)

    def problem(self) -> str:
        """Verify every file against the manifest and return what is wrong, or an empty string."""
        return problem_in(self.path, self.step)


class CheckpointStore:
    """The checkpoints of one run.

    Args:
        folder: The run's ``checkpoints`` directory.
        attempt: The attempt that saves.
        fence: Surrounds each commit; raises when the attempt has been replaced, and lets nobody replace it meanwhile.
        free: Returns the bytes that are free where a folder is.
    """

    def __init__(
        self,
        folder: Path,
        *,
        attempt: int = 0,
        fence: Callable[[], AbstractContextManager[None]] = nullcontext,
        free: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
    ) -> None:
        self.folder = folder
        self._attempt = attempt
        self._fence = fence
        self._free = free

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

        Raises:
            OSError: Before anything is written, with ``ENOSPC``, if a checkpoint as large as the newest has no room.
        """
        staging = self.stage(step)
        try:
            write(staging)
            return self.commit(staging, step, metric=metric)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)  # on a full disk others need the space
            raise

    def stage(self, step: int) -> Path:
        """Make the hidden folder in which a checkpoint is put together, by one process or by several.

        Raises:
            OSError: With ``ENOSPC``, if a checkpoint as large as the newest has no room.
        """
        self._clean()
        self._check_space()
        staging = self.folder / f"{STAGING}{step:08d}-{self._attempt}-{os.getpid()}"
        staging.mkdir()
        return staging

    def commit(self, staging: Path, step: int, *, metric: float | None = None) -> Checkpoint:
        """Make a checkpoint of a folder that :meth:`stage` gave, once everything lies in it; durable on return.

        To be called by one process, after all that write into the folder have closed their files.
        """
        final = self.folder / folder_of(step)
        rating = metric if metric is not None and math.isfinite(metric) else None
        write_atomically(staging / MANIFEST, manifest_of(staging, step, self._attempt, rating).to_text())
        sync_tree(staging)
        with self._fence():
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

    def prune(
        self,
        keep_last: int,
        *,
        keep_every: int | None = None,
        saved: int | None = None,
        passing: Set[int] = frozenset(),
    ) -> list[int]:
        """Delete what is not kept: not the newest, the best, the tagged, or on the permanent schedule.

        The only good one always stays: unless ``saved`` is known to be whole, the newest that verifies is looked for
        first, and kept.

        Args:
            keep_last: How many of the newest to keep.
            keep_every: Keep those whose steps are multiples of this for good; None has no such schedule.
            saved: The step of a checkpoint that this process has just saved.
            passing: Steps that are not among the newest ones to keep.

        Returns:
            The steps that are gone, the oldest first.
        """
        gone = self.spare(keep_last, keep_every=keep_every, saved=saved, passing=passing)
        for step in gone:
            with self._fence():
                aside = self._move_aside(self.folder / folder_of(step))
            shutil.rmtree(aside)
        return gone

    def spare(
        self,
        keep_last: int,
        *,
        keep_every: int | None = None,
        saved: int | None = None,
        passing: Set[int] = frozenset(),
    ) -> list[int]:
        """Return the steps that :meth:`prune` would delete, the oldest first."""
        there = self.all()
        safe = saved if saved is not None else next((one.step for one in there if not one.problem()), None)
        rated = {checkpoint.step: metric for metric, checkpoint in self._rated()}
        besides = {*self.tags().values()} if safe is None else {*self.tags().values(), safe}
        keep = kept([one.step for one in there], rated, Retention(keep_last, keep_every, frozenset(besides), passing))
        return sorted(one.step for one in there if one.step not in keep)

    def rated_best(self) -> int | None:
        """Return the step that is kept as the best, unverified; None when none carries a rating."""
        rated = {checkpoint.step: metric for metric, checkpoint in self._rated()}
        return best_of(rated) if rated else None

    def tag(self, name: str, step: int) -> None:
        """Give the checkpoint of a step a name, under which it is kept for good; a name can move on to another one."""
        check_tag(name)
        with self._fence():
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
            except (OSError, ValueError):
                continue
            if metric is not None:
                rated.append((metric, checkpoint))
        return rated

    def _move_aside(self, path: Path) -> Path:
        """Give a checkpoint a hidden name before its deletion: half a deletion must not look like a checkpoint.

        Not when the power goes, either: the name lasts before anything is deleted.
        """
        trash = path.with_name(f"{TRASH}{path.name}-{os.getpid()}")
        path.rename(trash)
        sync_directory(self.folder)
        return trash

    def _clean(self) -> None:
        """Remove what earlier crashes left behind."""
        for beginning in (STAGING, TRASH):
            for path in self.folder.glob(f"{beginning}*"):
                shutil.rmtree(path, ignore_errors=True)

    def _check_space(self) -> None:
        """Refuse to begin what would fill the disk: others write there as well."""
        try:
            needed = next((checkpoint.manifest.bytes for checkpoint in self.all()), 0) + _SPARE_BYTES
        except (OSError, ValueError):
            return  # nothing tells how large it will be
        if (free := self._free(self.folder)) < needed:
            said = f"{os.strerror(errno.ENOSPC)}: a checkpoint takes about {needed:,} bytes, and {free:,} are free"
            raise OSError(errno.ENOSPC, said, str(self.folder))
