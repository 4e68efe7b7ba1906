"""A child run that begins where its parent stands.

Whoever asks for it has prepared its directory, with the config that it is to have, under a hidden name. Here it gets
its first checkpoint and its name.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clew.checkpoints import Checkpoint
from clew.errors import UserError
from clew.runs import Run
from clew.runs.files import link_tree
from clew.runs.run import publish_run
from clew.session.saving import kept_with
from clew.session.settings import Setting, Value

PREFIX = ".new-"


def born_before(runs: Path, name: object) -> Run | None:
    """Return a child that was prepared under this name and born already, by an attempt that died before it said so."""
    _check(name)
    called, _, uid = str(name).removeprefix(PREFIX).rpartition("-")
    child = Run(runs / called)
    there = bool(called) and (child.path / "run.json").is_file() and child.info.uid == uid
    return child if there else None


def _check(name: object) -> None:
    if not isinstance(name, str) or not name.startswith(PREFIX) or "/" in name:
        raise UserError("a fork needs a child that was prepared for it", hint="ask for it by clew fork")


def staged(runs: Path, name: object) -> Run:
    """Return a child that was prepared.

    Args:
        runs: The folder of runs.
        name: The name of its hidden folder.

    Raises:
        UserError: If there is none of that name.
    """
    _check(name)
    if not (runs / str(name) / "run.json").is_file():
        raise UserError("the child that was prepared for it is gone")
    return Run(runs / str(name))


def bear(child: Run, checkpoint: Checkpoint) -> Run:
    """Give a prepared child its first checkpoint, which takes no space of its own, and its name.

    Returns:
        The child, in state ``created``.

    Raises:
        RunExists: If the name is taken meanwhile.
    """
    place = child.checkpoints / checkpoint.path.name
    shutil.rmtree(place, ignore_errors=True)  # of an attempt that died while it linked
    link_tree(checkpoint.path, place)
    return publish_run(child, fork_step=checkpoint.step, inherited=list(kept_with(checkpoint).get("contained", ())))


def overridden(settings: Sequence[Setting], changes: Mapping[str, Any]) -> dict[str, Setting]:
    """Return the settings that stand over config keys which a fork has changed, by their names."""
    return {setting.name: setting for setting in settings if setting.key and setting.key in changes}


def switched(settings: Sequence[Setting], changes: Mapping[str, Any]) -> dict[str, Value]:
    """Return the values of settings with which a process can go on as a child.

    Args:
        settings: What there is.
        changes: Dotted config key to the child's value.

    Raises:
        UserError: If one of the changes needs a process of its own, or does not fit.
    """
    known = overridden(settings, changes)
    if rest := sorted(changes.keys() - {setting.key for setting in known.values()}):
        raise UserError(
            f"{', '.join(rest)} cannot change in a process that goes on",
            hint="leave --switch out: a new one is started",
        )
    return {name: setting.parse(changes[setting.key]) for name, setting in known.items()}
