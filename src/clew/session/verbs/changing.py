"""Set: change a number of the trainer from the next step on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from clew.session.commands import Done, Rule, Standing
from clew.session.settings import STEPS, Value, chosen, write
from clew.session.verbs.base import Boundary, Verb


def _set(boundary: Boundary, args: Mapping[str, Any]) -> Mapping[str, Any]:
    values = chosen(boundary.settings(), args)
    _write(boundary, values)
    return {"values": values}


def _again(boundary: Boundary, args: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    _write(boundary, _values(args, result))


def _write(boundary: Boundary, values: Mapping[str, Value]) -> None:
    write(boundary.settings(), values)
    if STEPS in values:
        boundary.horizon(int(values[STEPS]))


def _changed(standing: Standing, done: Done) -> Standing:
    return replace(standing, settings={**standing.settings, **_values(done.args, done.result)})


def _values(args: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, Value]:
    """What was put in force. Journals of earlier versions have the arguments only, which are numbers or spell some."""
    return dict(result["values"]) if "values" in result else {name: float(value) for name, value in args.items()}


SET = Verb("set", _set, None, Rule(_changed), _again)
