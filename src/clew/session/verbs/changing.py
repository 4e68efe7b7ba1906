"""Set: change a number of the trainer from the next step on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from clew.session.commands import Rule, Standing
from clew.session.settings import STEPS, chosen, write
from clew.session.verbs.base import Boundary, Verb


def _set(boundary: Boundary, args: Mapping[str, Any]) -> None:
    settings = boundary.settings()
    values = chosen(settings, args)
    write(settings, values)
    if STEPS in values:
        boundary.horizon(int(values[STEPS]))


def _changed(standing: Standing, args: Mapping[str, Any], step: int) -> Standing:
    # The arguments were checked when they were carried out: they are numbers, or texts that are numbers.
    return replace(standing, settings={**standing.settings, **{name: float(value) for name, value in args.items()}})


SET = Verb("set", _set, None, Rule(_changed))
