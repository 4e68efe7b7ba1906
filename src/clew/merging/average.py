"""The weighted mean of weights (model soups, Wortsman et al. 2022, arXiv:2203.05482)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from clew.errors import UserError


def average(models: Iterable[Mapping[str, Tensor]], weights: Sequence[float]) -> dict[str, Tensor]:
    """Return the weighted mean of tensors of the same names, in the dtypes of the first.

    Sums are in float64, so that float32 and narrower weights are rounded once: equal tensors give themselves bitwise,
    whatever the weights. Tensors that hold no real numbers (counters, masks) are those of the first: a mean of counts
    would be a count of nothing.

    Args:
        models: Read one after the other, so that a generator may load them one at a time.
        weights: One for each, positive; only their ratios count.

    Raises:
        UserError: If a mean is not finite.
        ValueError: If names or the number of weights do not agree.
    """
    total = math.fsum(weights)
    kept: dict[str, Tensor] = {}
    sums: dict[str, Tensor] = {}
    dtypes: dict[str, torch.dtype] = {}
    for tensors, weight in zip(models, weights, strict=True):
        if not dtypes:
            dtypes = {name: tensor.dtype for name, tensor in tensors.items()}
            kept = {name: tensor.clone() for name, tensor in tensors.items() if not tensor.is_floating_point()}
        if tensors.keys() != dtypes.keys():
            odd = sorted(tensors.keys() ^ dtypes.keys())
            raise ValueError(f"the tensors have other names: {', '.join(odd[:3])}")
        for name in tensors.keys() - kept.keys():
            part = tensors[name].detach().to(torch.float64) * (weight / total)
            sums[name] = sums[name].add_(part) if name in sums else part
    if not dtypes:
        raise ValueError("nothing to average")
    return {name: _rounded(name, sums[name], dtypes[name]) if name in sums else kept[name] for name in dtypes}


def _rounded(name: str, value: Tensor, dtype: torch.dtype) -> Tensor:
    mean = value.to(dtype)
    if not torch.isfinite(mean).all():
        raise UserError(
            f"the mean of {name} is not finite", hint="one of the models has diverged, or its dtype overflows"
        )
    return mean


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Return the parameters and saved buffers of a model by name; tied ones once, so that they stay tied."""
    saved = model.state_dict(keep_vars=True)
    buffers = {name: buffer for name, buffer in model.named_buffers() if name in saved}
    return {**dict(model.named_parameters()), **buffers}


@torch.no_grad()
def put(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy tensors by name into a model's own."""
    for name, own in tensors_of(model).items():
        if name in tensors:
            own.copy_(tensors[name])
