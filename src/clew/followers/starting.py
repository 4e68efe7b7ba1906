"""Starting the processes in which a run is followed, and who that is to be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from clew.config import Registry, dump, load, load_tree
from clew.config.schema import fields_of
from clew.config.tree import Section
from clew.followers.base import FollowingConfig, followers_of, tracker_registry
from clew.logs.logger import Logger
from clew.logs.piping import log_pipe
from clew.runs import Run
from clew.session.surface import CheckpointConfig

_KEYS = frozenset(fields_of(FollowingConfig))


def start(run: Run, attempt: int, settings: Any) -> None:
    """Start the processes that follow an attempt, in the background and with a log of their own.

    Args:
        run: The run.
        attempt: The attempt that is followed.
        settings: A :class:`FollowingConfig`, or a job's config, which has the same fields.
    """
    names = list(followers_of(settings))
    if not names:
        return
    try:
        with log_pipe(log_path(run, attempt), os.environ) as pipe:
            for name in names:
                output = {"stdout": pipe.into, "stderr": subprocess.STDOUT}
                spawn(run, attempt, settings, name, start_new_session=True, **output)
    except OSError as error:
        Logger("clew.followers", run=run.id, attempt=attempt).warning(f"not everybody follows this run: {error}")


def spawn(run: Run, attempt: int, settings: Any, name: str, **options: Any) -> subprocess.Popen[bytes]:
    """Start a process for one follower; libraries that do not bear with each other never meet.

    Args:
        run: The run.
        attempt: The attempt that is followed.
        settings: As for :func:`start`.
        name: Which of its followers.
        options: For ``Popen``.
    """
    keys = _KEYS if isinstance(getattr(settings, "checkpoint", None), CheckpointConfig) else _KEYS - {"checkpoint"}
    said = {key: value for key, value in dump(settings, registries()).items() if key in keys}
    return subprocess.Popen(
        [sys.executable, "-m", "clew.followers.process", str(run.path), str(attempt), name, json.dumps(said)],
        stdin=subprocess.DEVNULL,
        env={**followers_of(settings)[name].environment, **os.environ, "PYTHONUNBUFFERED": "1"},
        **options,
    )


def log_path(run: Run, attempt: int) -> Path:
    """Return the file that holds what the followers of an attempt print."""
    return run.path / "logs" / f"followers-{attempt}.log"


def following_of(run: Run) -> FollowingConfig:
    """Return who follows a run, without the job and the libraries that its config needs.

    Raises:
        ConfigError: If the config cannot be read, or a follower's class is gone.
    """
    tree = load_tree(run.config_path)
    # What a job calls `checkpoint` may be something else; whoever asks here wants to know of trackers.
    part = Section({name: node for name, node in tree.items.items() if name in _KEYS - {"checkpoint"}}, tree.origin)
    value: FollowingConfig = load(part, root=FollowingConfig, registries=registries()).value
    return value


def registries() -> dict[str, Registry]:
    """Return the registries that :class:`FollowingConfig` refers to."""
    return {"tracker": tracker_registry()}
