"""What each dimension of each parameter and activation means.

A sharding rule speaks of axes ("split `mlp` over `tensor`"), never of parameter names. Every parameter has an entry
here, outermost dimension first, as PyTorch stores it: a linear layer's weight is [out, in]. Layers are separate
parameters, so the `layer` axis is the number in the parameter's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from torch import nn

from clew.models.config import Shape

AXES = ("vocab", "embed", "mlp", "heads", "kv", "layer")

ACTIVATIONS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "tokens": ("batch", "seq"),
        "stream": ("batch", "seq", "embed"),
        "query": ("batch", "seq", "heads"),
        "key": ("batch", "seq", "kv"),
        "value": ("batch", "seq", "kv"),
        "mixed": ("batch", "seq", "heads"),
        "gated": ("batch", "seq", "mlp"),
        "logits": ("batch", "seq", "logits"),
    }
)
"""The axes of what a forward pass computes, by name; `stream` is what goes from layer to layer. The words of `logits`
are an axis of their own: the loss may take all of them where each device has the rows of some."""

SHARED_INPUT = ("layers.*.attention", "layers.*.mlp")
"""Glob patterns of modules that use their first argument for nothing but the products of their own layers."""

_OF_SUFFIX: dict[str, tuple[str, ...]] = {
    "embed.weight": ("vocab", "embed"),
    "head.weight": ("vocab", "embed"),
    "norm.weight": ("embed",),
    "attention_norm.weight": ("embed",),
    "mlp_norm.weight": ("embed",),
    "query.weight": ("heads", "embed"),
    "key.weight": ("kv", "embed"),
    "value.weight": ("kv", "embed"),
    "out.weight": ("embed", "heads"),
    "gate.weight": ("mlp", "embed"),
    "up.weight": ("mlp", "embed"),
    "down.weight": ("embed", "mlp"),
}


def logical_axes(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """Return each parameter's axes by its name.

    Raises:
        ValueError: If a parameter declares no axes, or another number of them than it has dimensions.
    """
    axes = {}
    for name, parameter in model.named_parameters():
        declared = _OF_SUFFIX.get(".".join(name.split(".")[-2:]))
        if declared is None:
            raise ValueError(f"parameter {name!r} declares no logical axes")
        if len(declared) != parameter.dim():
            raise ValueError(f"parameter {name!r} has {parameter.dim()} dimensions, but declares {declared}")
        axes[name] = declared
    return axes


def axis_units(shape: Shape) -> dict[str, int]:
    """Return how many numbers of an axis stay together wherever it is split: a head is whole, or it is not there."""
    return {"heads": shape.head_width, "kv": shape.head_width}


def axis_sizes(model: nn.Module) -> dict[str, int]:
    """Return the size of each axis that a parameter has.

    Raises:
        ValueError: If two parameters disagree about an axis.
    """
    sizes: dict[str, int] = {}
    parameters = dict(model.named_parameters())
    for name, axes in logical_axes(model).items():
        for axis, size in zip(axes, parameters[name].shape, strict=True):
            if sizes.setdefault(axis, size) != size:
                raise ValueError(f"axis {axis!r} is {sizes[axis]} elsewhere, but {size} in {name!r}")
    return sizes


def layer_of(name: str) -> int | None:
    """Return the layer that a parameter belongs to; None for those outside the layers."""
    head, _, rest = name.partition(".")
    return int(rest.partition(".")[0]) if head == "layers" else None
