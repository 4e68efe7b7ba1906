"""Pause, resume, and steps in between."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from clew.errors import UserError
from clew.session.commands import Done, Rule, Standing
from clew.session.verbs.base import Boundary, Verb, whole


def _pause(boundary: Boundary, args: Mapping[str, Any]) -> None:
    save = args.get("save", True)
    if not isinstance(save, bool):
        raise UserError(f"save must be true or false, not {save!r}")
    if boundary.can_save:
        boundary.save() if save else boundary.require_checkpoint()


def _resume(boundary: Boundary, args: Mapping[str, Any]) -> None:
    if boundary.standing.pause_at is None:
        raise UserError("the run is not paused")


def _step(boundary: Boundary, args: Mapping[str, Any]) -> None:
    whole(args, "steps", 1)


def _paused(standing: Standing, done: Done) -> Standing:
    return replace(standing, pause_at=done.at)


def _stepping(standing: Standing, done: Done) -> Standing:
    return replace(standing, pause_at=done.at + done.args["steps"])


def going_on(standing: Standing, done: Done) -> Standing:
    """The standing of a run that nothing pauses."""
    return replace(standing, pause_at=None)


PAUSE = Verb("pause", _pause, frozenset({"save"}), Rule(_paused, lapses=True))
RESUME = Verb("resume", _resume, rule=Rule(going_on, lapses=True))
STEP = Verb("step", _step, frozenset({"steps"}), Rule(_stepping, lapses=True))
