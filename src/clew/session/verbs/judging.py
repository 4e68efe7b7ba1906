"""Evaluate: measure the model as it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clew.session.surface import Evaluable, capable
from clew.session.verbs.base import Boundary, Verb


def _evaluate(boundary: Boundary, args: Mapping[str, Any]) -> Mapping[str, Any]:
    measured = dict(capable(boundary.surface, Evaluable).evaluate())
    boundary.log(measured)
    return {"metrics": measured}


def _again(boundary: Boundary, args: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    """What was measured after the restored state is superseded with its step; what was measured in it stands."""
    if boundary.step != boundary.restored:
        _evaluate(boundary, args)


EVALUATE = Verb("evaluate", _evaluate, again=_again)
