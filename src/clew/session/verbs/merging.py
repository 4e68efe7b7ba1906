"""Merge: the weights of other checkpoints become one with those that train."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

from clew.checkpoints import CheckpointStore
from clew.errors import UserError, did_you_mean
from clew.session.surface import Mergeable, MergeRequest, capable
from clew.session.verbs.base import Boundary, Verb

LIVE = "."
"""Stands for the weights of the moment."""
OPTIMIZER = ("reset", "keep")
"""What can become of the optimizer's state; the first is what does if nothing is said."""


def _merge(boundary: Boundary, args: Mapping[str, Any]) -> Mapping[str, Any]:
    sources, base = args.get("sources"), args.get("base")
    if not (isinstance(sources, list) and sources and all(isinstance(one, str) and one for one in sources)):
        raise UserError(
            f"sources must be a list such as ['RUN@100', '{LIVE}'], not {sources!r}",
            hint=f"{LIVE} is the weights that train",
        )
    if base is not None and not (isinstance(base, str) and base):
        raise UserError(f"base must be a checkpoint such as RUN@100, not {base!r}")
    return _carry_out(boundary, args, sources, base)


def _again(boundary: Boundary, args: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    # By their steps: what was the best or the last then may be another one by now.
    _carry_out(boundary, args, result["sources"], result.get("base"))


def _carry_out(
    boundary: Boundary, args: Mapping[str, Any], sources: Sequence[str], base: str | None
) -> Mapping[str, Any]:
    surface = capable(boundary.surface, Mergeable)
    method, weights, optimizer, seed = _method(args), _weights(args, len(sources)), _optimizer(args), _seed(args)
    places = [None if _is_live(boundary, one) else boundary.source(one) for one in sources]
    under = None if base is None else boundary.source(base)
    names = [LIVE if place is None else place.name for place in places]
    request = MergeRequest(
        places,
        names,
        method,
        weights,
        optimizer,
        seed,
        base=under,
        scratch=boundary.folder,
        own=_newest(boundary.folder),
    )
    facts = surface.merge(request)
    return {**facts, "sources": names, **({"base": under.name} if under else {}), "optimizer": optimizer}


def _is_live(boundary: Boundary, source: str) -> bool:
    return source in (LIVE, boundary.folder.name)


def _newest(folder: Path) -> Path | None:
    """A checkpoint of the run itself, unverified: only what it says of its model is compared."""
    return next((one.path for one in CheckpointStore(folder / "checkpoints").all()), None)


def _method(args: Mapping[str, Any]) -> Mapping[str, Any]:
    method = args.get("method", "average")
    if isinstance(method, str):
        return {"type": method}
    if not isinstance(method, dict):
        raise UserError(f"method must be a name, or type and options, not {method!r}")
    return method


def _weights(args: Mapping[str, Any], count: int) -> list[float]:
    weights = args.get("weights")
    if weights is None:
        return []
    if not (isinstance(weights, list) and all(type(one) in (int, float) for one in weights)):
        raise UserError(f"weights must be a list of numbers, not {weights!r}")
    if len(weights) != count:
        raise UserError(f"{len(weights)} weights for {count} sources")
    return [float(one) for one in weights]


def _optimizer(args: Mapping[str, Any]) -> Literal["keep", "reset"]:
    optimizer = args.get("optimizer", OPTIMIZER[0])
    if optimizer not in OPTIMIZER:
        raise UserError(
            f"optimizer must be keep or reset, not {optimizer!r}", hint=did_you_mean(str(optimizer), OPTIMIZER)
        )
    return cast(Literal["keep", "reset"], optimizer)


def _seed(args: Mapping[str, Any]) -> int:
    seed = args.get("seed", 0)
    if type(seed) is not int or seed < 0:
        raise UserError(f"seed must be a whole number from 0, not {seed!r}")
    return seed


MERGE = Verb("merge", _merge, frozenset({"sources", "method", "weights", "base", "optimizer", "seed"}), again=_again)
