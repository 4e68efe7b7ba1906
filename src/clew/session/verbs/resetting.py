"""Reset: the weights of an earlier checkpoint, or an optimizer that knows nothing; steps and data go on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clew.errors import UserError
from clew.session.surface import Resettable, capable
from clew.session.verbs.base import Boundary, Verb


def _reset(boundary: Boundary, args: Mapping[str, Any]) -> Mapping[str, Any]:
    to, optimizer = args.get("to"), args.get("optimizer", False)
    if not isinstance(optimizer, bool):
        raise UserError(f"optimizer must be true or false, not {optimizer!r}")
    if to is None and not optimizer:
        raise UserError("nothing to reset; name a checkpoint (--to), the optimizer (--optimizer), or both")
    if to is not None and not (type(to) is int or (isinstance(to, str) and to)):
        raise UserError(f"a checkpoint is a step or a tag, best or last, not {to!r}")
    surface = capable(boundary.surface, Resettable)
    source = None if to is None else boundary.source(str(to))
    surface.reset(source, optimizer=optimizer)
    return {"source": source.name if source else None}


def _again(boundary: Boundary, args: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    source = result.get("source")
    place = boundary.source(source.removeprefix("@")) if source else None
    capable(boundary.surface, Resettable).reset(place, optimizer=args.get("optimizer", False))


RESET = Verb("reset", _reset, frozenset({"to", "optimizer"}), again=_again)
