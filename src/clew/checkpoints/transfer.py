"""A checkpoint as a folder of its own: out of a run, and into a new run that goes on from it."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

from clew.checkpoints.manifest import MANIFEST, problem_in, read_manifest
from clew.checkpoints.store import Checkpoint, folder_of
from clew.errors import UserError
from clew.runs import Run, RunInfo
from clew.runs.files import read_json, sync_directory, sync_tree
from clew.runs.ids import ulid
from clew.runs.run import publish_run, stage_run

_RUN = "run"
_STATE = "checkpoint"
_FILES = ("run.json", "config.yaml", "origins.json")


def export_checkpoint(run: Run, checkpoint: Checkpoint, target: Path) -> None:
    """Write a checkpoint, and what its run is, into a new folder; it is whole or not there.

    Args:
        run: Whose checkpoint it is.
        checkpoint: One that verifies.
        target: The folder; it must not exist.

    Raises:
        UserError: If the folder exists.
    """
    staging = _staging(target)
    try:
        shutil.copytree(checkpoint.path, staging / _STATE)
        (staging / _RUN).mkdir()
        for name in _FILES:
            shutil.copyfile(run.path / name, staging / _RUN / name)
        _publish(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def export_model(model: Path, target: Path) -> None:
    """Write the part of a checkpoint that other programs load into a new folder; it is whole or not there.

    Args:
        model: The part, such as the folder ``model`` of a checkpoint.
        target: The folder; it must not exist.

    Raises:
        UserError: If the folder exists.
    """
    staging = _staging(target)
    try:
        shutil.copytree(model, staging, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MANIFEST, "session.json"))
        _publish(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def import_checkpoint(folder: Path, runs: Path, name: str) -> Run:
    """Make a run of what :func:`export_checkpoint` wrote; ``clew resume`` goes on from there.

    Args:
        folder: The exported folder.
        runs: The folder of runs.
        name: The name of the new run.

    Raises:
        UserError: If the folder is no such thing or damaged, or the name is taken.
    """
    state, described = folder / _STATE, folder / _RUN
    if not (state / MANIFEST).is_file() or not (described / "run.json").is_file():
        is_model = any((folder / mark).is_file() for mark in ("config.json", "adapter_config.json"))
        hint = f"it is a model: say model={folder} in a config" if is_model else "clew checkpoints export makes one"
        raise UserError("this is no exported checkpoint", where=str(folder), hint=hint)
    step = _step(state)
    if problem := problem_in(state, step):
        raise UserError(f"the checkpoint is damaged: {problem}", where=str(folder))
    info = RunInfo(**read_json(described / "run.json"))
    info = replace(info, id=name, uid=ulid(), plan=None, stage=None, replay_of=None)
    config = (described / "config.yaml").read_text(encoding="utf-8")
    staging = stage_run(runs, info, config, read_json(described / "origins.json"))
    try:
        shutil.copytree(state, staging.checkpoints / folder_of(step))
        sync_tree(staging.checkpoints)
    except BaseException:
        shutil.rmtree(staging.path, ignore_errors=True)
        raise
    return publish_run(staging)


def _step(state: Path) -> int:
    try:
        return read_manifest(state).step
    except (OSError, ValueError):
        raise UserError(f"the checkpoint is damaged: {MANIFEST} cannot be read", where=str(state)) from None


def _staging(target: Path) -> Path:
    if target.exists():
        raise UserError("this folder exists already", where=str(target), hint="name one that is to be made")
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = target.with_name(f".new-{target.name}-{os.getpid()}")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    return staging


def _publish(staging: Path, target: Path) -> None:
    sync_tree(staging)
    staging.rename(target)
    sync_directory(target.parent)
