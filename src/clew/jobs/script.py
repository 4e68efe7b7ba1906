"""Script: a Python program of your own, which opens its session itself."""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from clew.config import NOT_HASHED, InputPath, config
from clew.errors import UserError
from clew.jobs.base import CheckpointConfig, JobConfig, job
from clew.live.script import failed_exit, newest_metrics, surrounded
from clew.session import Outcome, Session
from clew.session.surface import LiveConfig


@config
class ScriptConfig(JobConfig):
    """A program that says ``clew.session(...)``; it is run as ``python`` would run it."""

    script: InputPath | None
    """The file; null is a run that was made in a notebook or an interpreter."""
    module: Annotated[str, NOT_HASHED] = ""
    """The module that it is, when it is to be run with ``python -m``."""
    argv: list[str] = Field(default_factory=list)
    """Its arguments."""
    folder: Annotated[str, NOT_HASHED] = ""
    """Where it runs; empty is the folder in which the worker is started."""
    params: dict[str, Any] = Field(default_factory=dict)
    """Numbers and words of its own; they lie over those that it gives to its session."""
    checkpoint: CheckpointConfig = Field(default_factory=CheckpointConfig)
    """When to save."""
    live: LiveConfig = Field(default_factory=LiveConfig)
    """What the run notes about itself."""


def _check(config: ScriptConfig, runs: Path) -> None:
    if config.script is not None and not Path(config.script).is_file():
        raise UserError(f"there is no file {config.script}", where="script")


@job(check=_check)
def script(session: Session[ScriptConfig]) -> Outcome:
    """Run a program of your own that opens its session with clew.session()."""
    settings = session.config
    if settings.script is None:
        raise UserError(
            "the run was made in a notebook or an interpreter: there is no script to start",
            where=session.run.id,
            hint="open the session there once more, under the same name",
        )
    with surrounded(session), _as_program(settings):
        try:
            if settings.module:
                runpy.run_module(settings.module, run_name="__main__", alter_sys=True)
            else:
                runpy.run_path(settings.script, run_name="__main__")
        except SystemExit as leaving:
            if (failed := failed_exit(leaving)) is not None:
                raise failed from leaving
    return Outcome(metrics=newest_metrics(session))


@contextmanager
def _as_program(settings: ScriptConfig) -> Iterator[None]:
    """Let arguments, imports and relative paths be as if Python had been started with the script."""
    before = sys.argv, list(sys.path), Path.cwd()
    if settings.folder and Path(settings.folder).is_dir():
        os.chdir(settings.folder)
    first = str(Path.cwd()) if settings.module else str(Path(str(settings.script)).parent)
    sys.argv = [str(settings.script), *settings.argv]
    sys.path.insert(0, first)
    try:
        yield
    finally:
        sys.argv, sys.path[:] = before[:2]
        os.chdir(before[2])
