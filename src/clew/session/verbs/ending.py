"""Stop, and abort. A run that has ended so and is resumed is not paused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clew.runs import State
from clew.session.commands import Rule
from clew.session.verbs.base import Boundary, Verb
from clew.session.verbs.pausing import going_on


def _stop(boundary: Boundary, args: Mapping[str, Any]) -> None:
    if boundary.can_save:
        boundary.save()
    boundary.end(State.STOPPED, "stop was asked for")


def _abort(boundary: Boundary, args: Mapping[str, Any]) -> None:
    boundary.end(State.STOPPED, "abort was asked for, nothing was saved")


STOP = Verb("stop", _stop, rule=Rule(going_on, lapses=True))
ABORT = Verb("abort", _abort, rule=Rule(going_on, lapses=True))
