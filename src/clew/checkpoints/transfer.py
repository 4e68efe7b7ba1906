"""A checkpoint as a folder of its own: out of a run, and into a new run that goes on from it."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

from clew.checkpoints.manifest import MANIFEST, problem_in, read_manifest
from clew.checkpoints.store import Checkpoint, folder_of
from clew.checkpoints.tensors import tensors_of, write_tensors
from clew.errors import UserError
from clew.runs import Run, RunInfo
from clew.runs.files import read_json, sync_directory, sync_tree
from clew.runs.ids import ulid
from clew.runs.run import publish_run, stage_run

_RUN = "run"
_STATE = "checkpoint"
_FILES = ("run.json", "config.yaml", "origins.json")
_OURS = (MANIFEST, "session.json")
_WEIGHTS = ("*.safetensors", "*.safetensors.index.json")


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


def export_model(model: Path, target: Path, shard_bytes: int | None = None) -> None:
    """Write the part of a checkpoint that other programs load into a new folder; it is whole or not there.

    Weights go from file to file in pieces, bit by bit the same, so that no more than a piece of them is in memory.

    Args:
        model: The part, such as the folder ``model`` of a checkpoint.
        target: The folder; it must not exist.
        shard_bytes: How large the tensors of a file may be together; None leaves the files as they are.

    Raises:
        UserError: If the folder exists, or there are no weights that could be divided otherwise.
    """
    if shard_bytes is not None and (model / "adapter_config.json").is_file():
        raise UserError("an adapter is one file", where=str(model), hint="leave --shard-size out")
    staging = _staging(target)
    try:
        left_out = _OURS if shard_bytes is None else (*_OURS, *_WEIGHTS)
        shutil.copytree(model, staging, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*left_out))
        if shard_bytes is not None:
            write_tensors(tensors_of(model), staging, shard_bytes)
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
    if not folder.is_dir():
        raise UserError("there is no such folder", where=str(folder))
    state, described = folder / _STATE, folder / _RUN
    if not (state / MANIFEST).is_file() or not (described / "run.json").is_file():
        is_adapter = (folder / "adapter_config.json").is_file()
        hint = (
            f"it is an adapter: say model={folder} in a config" if is_adapter else "clew checkpoints export makes one"
        )
        raise UserError("this is no exported checkpoint, and no model", where=str(folder), hint=hint)
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


def is_exported(folder: Path) -> bool:
    """Whether a folder is one that :func:`export_checkpoint` wrote, or what is left of it."""
    return (folder / _STATE).is_dir() or (folder / _RUN).is_dir()


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
