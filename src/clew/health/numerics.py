"""Norms, update ratios, and what is not finite, for each layer of a model."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn

from clew.errors import UserError
from clew.health.collecting import Collector, Fetched, Section, measure
from clew.health.losses import tidy
from clew.health.updates import Trained, gradient_moment, trained_by, update

_STATISTICS = ("running_mean", "running_var")
"""Buffers that are as good as weights. Others may hold infinities for good reasons, such as attention masks."""
_COMPILED = "_orig_mod."


@dataclass(frozen=True)
class _Asked:
    """Where the figures of one parameter stand in what is fetched; None for what there is not."""

    layer: str
    trained: bool
    weight: slice
    gradient: slice | None = None
    moment: slice | None = None
    state: slice | None = None
    update: slice | None = None
    updates: slice | None = None


def layer_of(name: str) -> str:
    """Return the name of the module that a parameter belongs to; its own where it stands outside of all."""
    clear = name.replace(_COMPILED, "")
    return clear.rpartition(".")[0] or clear


def collect_numerics(collector: Collector, model: nn.Module, optimizers: Iterable[Any]) -> Section:
    """Ask for the norms of weights, gradients and updates, and for what is not finite.

    Args:
        collector: Takes the figures.
        model: Its floating-point parameters, and the running statistics of normalisations, are looked at.
        optimizers: What trains it.

    Raises:
        UserError: If the weights are sharded over ranks.
    """
    known = trained_by(optimizers)
    refuse_sharded(model)
    asked = [
        _ask(collector, name, parameter, known.get(id(parameter)))
        for name, parameter in model.named_parameters()
        if parameter.is_floating_point() and not parameter.is_meta
    ]
    asked += [
        _Asked(layer_of(name), False, collector.add(measure(buffer)))
        for name, buffer in model.named_buffers()
        if name.rpartition(".")[2] in _STATISTICS
    ]
    return lambda fetched: _section(asked, fetched)


def refuse_sharded(model: nn.Module) -> None:
    """Check that each rank has whole weights: the norm of a shard would pass for that of a layer.

    Raises:
        UserError: If they are sharded.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return
    from torch.distributed.tensor import DTensor

    if any(isinstance(parameter, DTensor) for parameter in model.parameters()):
        raise UserError("the weights are sharded over ranks, and the health of shards is not told yet")


def _ask(collector: Collector, name: str, parameter: nn.Parameter, trained: Trained | None) -> _Asked:
    def add(figure: Tensor | None) -> slice | None:
        return None if figure is None else collector.add(figure)

    layer, weight = layer_of(name), collector.add(measure(parameter))
    gradient = parameter.grad
    if gradient is not None and gradient.is_sparse:
        gradient = gradient.coalesce().values()
    slope = add(None if gradient is None else measure(gradient))
    if trained is None:
        return _Asked(layer, parameter.requires_grad, weight, slope)
    tensors = trained.tensors
    return _Asked(
        layer,
        parameter.requires_grad,
        weight,
        slope,
        moment=add(gradient_moment(trained)) if gradient is None else None,
        state=add(torch.stack([measure(tensor) for tensor in tensors]).sum(0) if tensors else None),
        update=add(update(parameter, trained)),
        updates=add(trained.updates),
    )


def _section(asked: list[_Asked], fetched: Fetched) -> dict[str, Any]:
    groups: dict[str, list[_Asked]] = defaultdict(list)
    for one in asked:
        groups[one.layer].append(one)
    trained = [one for one in asked if one.trained]
    return {
        "weight_norm": tidy(_norm([one.weight for one in asked], fetched)),
        "gradient_norm": tidy(_norm([one.gradient or one.moment for one in trained], fetched)),
        "gradient_from": _source(trained),
        "not_finite": {layer: bad for layer, ones in groups.items() if (bad := _not_finite(ones, fetched))},
        "optimizer_state": any(one.state for one in asked),
        "layers": {
            layer: _layer([one for one in ones if one.trained], fetched)
            for layer, ones in groups.items()
            if any(one.trained for one in ones)
        },
    }


def _layer(ones: list[_Asked], fetched: Fetched) -> dict[str, Any]:
    weight = _norm([one.weight for one in ones], fetched)
    # A layer's update is known only if that of all its parts is.
    moved = None if any(one.update is None for one in ones) else _norm([one.update for one in ones], fetched)
    counts = [fetched[one.updates][0] for one in ones if one.updates is not None]
    return {
        "weight": tidy(weight),
        "gradient": tidy(_norm([one.gradient or one.moment for one in ones], fetched)),
        "ratio": tidy(moved / weight) if moved is not None and weight else None,
        "updates": int(min(counts)) if counts else None,
    }


def _norm(parts: list[slice | None], fetched: Fetched) -> float | None:
    """The norm over what is there; each part ends with its sum of squares. None where nothing is there."""
    squares = [fetched[part][-1] for part in parts if part is not None]
    return math.sqrt(sum(squares)) if squares else None


def _source(asked: list[_Asked]) -> str | None:
    """What gradients were told from: ``grad``, ``first moment``, both, or None."""
    names = [("grad", any(one.gradient for one in asked)), ("first moment", any(one.moment for one in asked))]
    return " and ".join(name for name, there in names if there) or None


def _not_finite(ones: list[_Asked], fetched: Fetched) -> dict[str, dict[str, int]]:
    """What is not finite in a layer: ``{weights: {nan, inf}, gradients: ..., optimizer: ...}``, only where it is so."""
    found: dict[str, dict[str, int]] = {}
    for what, parts in (
        ("weights", [one.weight for one in ones]),
        ("gradients", [one.gradient for one in ones]),
        ("optimizer", [one.state for one in ones]),
    ):
        there = [fetched[part] for part in parts if part is not None]
        counts = {"nan": int(sum(part[0] for part in there)), "inf": int(sum(part[1] for part in there))}
        if any(counts.values()):
            found[what] = counts
    return found
