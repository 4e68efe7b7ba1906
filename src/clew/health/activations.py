"""Units that are never active, or stuck at an end, over one batch.

Where a nonlinearity is flat no gradient passes. So for each kind there is one question, asked of what goes into it:
whether it lies where the slope is at least one percent of the steepest. A unit is *dead* if over the whole batch it
always lay in the flat part of a function with one flat end, and *saturated* if so for one with two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import inf
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from clew.checkpoints.rng import kept_rng
from clew.health.collecting import Collector, Fetched, Section
from clew.health.losses import tidy


@dataclass(frozen=True)
class Slope:
    """Between which inputs a nonlinearity passes at least one percent of a gradient."""

    low: float
    high: float = inf

    @property
    def has_two_ends(self) -> bool:
        """Whether it is flat on both sides."""
        return self.low > -inf and self.high < inf


_RELU, _GELU, _SILU, _MISH = Slope(0.0), Slope(-3.067), Slope(-6.261), Slope(-6.264)
_GELUS = ("GELU", "GELUActivation", "NewGELUActivation", "GELUTanh", "FastGELUActivation", "AccurateGELUActivation")
# By the names of classes: those of Transformers need not be imported for it. Each bound is where the slope is 0.01;
# of a function with a minimum, the one to the left of that. tests/health/test_activations.py asks PyTorch.
SLOPES: Mapping[str, Slope] = MappingProxyType(
    {
        **dict.fromkeys(("ReLU", "ReLUSquaredActivation"), _RELU),
        **dict.fromkeys(_GELUS, _GELU),
        **dict.fromkeys(("SiLU", "SiLUActivation"), _SILU),
        **dict.fromkeys(("Mish", "MishActivation"), _MISH),
        "QuickGELUActivation": Slope(-3.679),
        "ELU": Slope(-4.605),
        "Softplus": Slope(-4.595),
        "ReLU6": Slope(0.0, 6.0),
        "Hardtanh": Slope(-1.0, 1.0),
        "Sigmoid": Slope(-4.585, 4.585),
        "Tanh": Slope(-2.993, 2.993),
    }
)
_GATED = ({"gate", "up", "down"}, {"gate_proj", "up_proj", "down_proj"})
"""Children of MLPs that gate with SiLU by a function, which no hook sees: there the gate's output is what goes in."""
_IMAGE_DIMS = 4
"""From so many dimensions on, units are channels, in the second one; else they are in the last."""


@dataclass(frozen=True)
class _Seen:
    """What a batch did in one layer.

    Attributes:
        slope: Of its nonlinearity.
        awake: [units] bool, whether each was in its steep part at least once.
        share: [] float, of all values that were not.
    """

    slope: Slope
    awake: Tensor
    share: Tensor


def collect_activations(collector: Collector, model: nn.Module, forward: Callable[[], object] | None) -> Section:
    """Run one batch, and ask for the dead and the saturated units.

    Args:
        collector: Takes the figures.
        model: What is looked at. A compiled model does not call hooks: give the one inside.
        forward: Runs one batch through it. Nothing else remains of that: gradients are off, the model is put into the
            evaluation mode and back module by module, and the random generators are as before.
    """
    if forward is None:
        return lambda fetched: None
    seen: dict[str, _Seen] = {}
    with _watched(model, seen), evaluating(model), kept_rng(), torch.no_grad():
        forward()
    asked = {
        name: (one, collector.add(torch.stack(((~one.awake).sum().to(one.share.dtype), one.share))))
        for name, one in seen.items()
    }
    return lambda fetched: _section(asked, fetched)


def _section(asked: Mapping[str, tuple[_Seen, slice]], fetched: Fetched) -> dict[str, Any]:
    """``{layers: {name: {units, dead | saturated, flat}}}``; ``flat`` is the share of all values in a flat part."""
    layers: dict[str, dict[str, Any]] = {}
    for name, (one, where) in asked.items():
        stuck, share = fetched[where]
        kind = "saturated" if one.slope.has_two_ends else "dead"
        layers[name] = {"units": one.awake.numel(), kind: int(stuck), "flat": tidy(share)}
    return {"layers": layers}


@contextmanager
def _watched(model: nn.Module, seen: dict[str, _Seen]) -> Iterator[None]:
    """Look at what goes into each nonlinearity while the body runs; nothing is left hooked, whatever happens."""
    handles: list[RemovableHandle] = []
    try:
        for name, module in model.named_modules():
            if slope := SLOPES.get(type(module).__name__):
                # Before the module, since one that works in place overwrites what went in.
                handles.append(module.register_forward_pre_hook(partial(_on_input, seen, name, slope)))
            elif gate := _functional_gate(module):
                handles.append(gate.register_forward_hook(partial(_on_gate, seen, name)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _functional_gate(module: nn.Module) -> nn.Module | None:
    """The gate of an MLP that has no module for its nonlinearity."""
    children = dict(module.named_children())
    if children.keys() not in _GATED:
        return None
    return children.get("gate") or children["gate_proj"]


def _on_input(seen: dict[str, _Seen], name: str, slope: Slope, module: nn.Module, args: tuple[Any, ...]) -> None:
    if args and isinstance(args[0], Tensor):
        _look(seen, name, slope, args[0])


def _on_gate(seen: dict[str, _Seen], name: str, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
    if isinstance(output, Tensor):
        _look(seen, name, _SILU, output)


def _look(seen: dict[str, _Seen], name: str, slope: Slope, values: Tensor) -> None:
    """Note which units are awake in these values; a layer that is called several times is awake if it was once."""
    awake = (values > slope.low) & (values < slope.high)
    units = 1 if values.dim() >= _IMAGE_DIMS else values.dim() - 1
    rest = [dim for dim in range(values.dim()) if dim != units]
    now = _Seen(slope, awake.amax(rest) if rest else awake, (~awake).float().mean())
    if (before := seen.get(name)) is not None and before.awake.shape == now.awake.shape:
        now = _Seen(slope, before.awake | now.awake, (before.share + now.share) / 2)
    seen[name] = now


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into its evaluation mode, and each of its modules back into its own."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
