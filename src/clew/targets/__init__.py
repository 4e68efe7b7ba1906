"""Targets: one file each. A new one is a new file here and one line in :data:`TARGETS`."""

from __future__ import annotations

from clew.errors import UserError, did_you_mean
from clew.jobs.choices import choice_of
from clew.runs import Run
from clew.targets.base import Target, Worker
from clew.targets.local import LocalTarget

TARGETS: dict[str, type[Target]] = {"local": LocalTarget}

__all__ = ["TARGETS", "LocalTarget", "Target", "Worker", "target_named", "target_of"]


def target_named(name: str) -> Target:
    """Return the target of a name.

    Raises:
        UserError: If there is none; with the nearest, or those that there are.
    """
    if name not in TARGETS:
        raise UserError(f"there is no target {name!r}", hint=did_you_mean(name, TARGETS))
    return TARGETS[name]()


def target_of(run: Run) -> Target:
    """Return where a run's attempts are made: what was said when it was last resumed, else when it was made.

    Raises:
        UserError: If there is no such target here.
    """
    choice = choice_of(run)
    said = [run.info.target, *(event.get("target") for event in run.events("changed")), choice and choice.target]
    return target_named([str(name) for name in said if name][-1])
