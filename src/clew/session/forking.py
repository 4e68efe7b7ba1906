"""A child run that begins where its parent stands.

Whoever asks for it has prepared its directory, with the config that it is to have, under a hidden name. Here it gets
its first checkpoint and its name.
"""

from __future__ import annotations

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


def staged(runs: Path, name: object) -> Run:
    """Return a child that was prepared.

    Args:
        runs: The folder of runs.
        name: The name of its hidden folder.

    Raises:
        UserError: If there is none of that name.
    """
    if not isinstance(name, str) or not name.startswith(PREFIX) or "/" in name:
        raise UserError("a fork needs a child that was prepared for it", hint="ask for it by clew fork")
    if not (runs / name / "run.json").is_file():
        raise UserError("the child that was prepared for it is gone")
    return Run(runs / name)


def bear(child: Run, checkpoint: Checkpoint) -> Run:
    """Give a prepared child its first checkpoint, which takes no space of its own, and its name.

    Returns:
        The child, in state ``created``.

    Raises:
        RunExists: If the name is taken meanwhile.
    """
    link_tree(checkpoint.path, child.checkpoints / checkpoint.path.name)
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
