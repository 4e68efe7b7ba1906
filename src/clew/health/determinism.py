"""What decides whether a run can be repeated bit by bit."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

# Layers whose backward pass adds up in no fixed order on CUDA, from the list in the documentation of
# torch.use_deterministic_algorithms.
_UNORDERED = frozenset(
    {
        *("AdaptiveAvgPool2d", "AdaptiveAvgPool3d", "AdaptiveMaxPool2d", "AvgPool3d", "CTCLoss", "EmbeddingBag"),
        *("FractionalMaxPool2d", "FractionalMaxPool3d", "MaxPool3d", "MaxUnpool1d", "MaxUnpool2d", "MaxUnpool3d"),
        *("ReflectionPad1d", "ReflectionPad2d", "ReflectionPad3d", "ReplicationPad1d", "ReplicationPad2d"),
        *("ReplicationPad3d", "Upsample", "UpsamplingBilinear2d", "UpsamplingNearest2d", "RReLU"),
    }
)
_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


def determinism(model: nn.Module, device: torch.device, data: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the switches that matter, and what is known to give other bits in each run.

    Args:
        model: Its layers and dtypes are looked at.
        device: Where it is.
        data: What the trainer says of its data, such as ``seed`` and ``sampler``; None where it says nothing.

    Returns:
        ``seed`` is PyTorch's own; ``nondeterministic`` names what is known, and is None for devices of which nothing
        is known.
    """
    on_cuda = device.type == "cuda"
    return {
        "seed": torch.initial_seed(),
        "data": dict(data) if data is not None else None,
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "cudnn_benchmark": torch.backends.cudnn.benchmark if on_cuda else None,
        "matmul_precision": torch.get_float32_matmul_precision(),
        "threads": torch.get_num_threads(),
        "device": device.type,
        "dtypes": sorted({str(parameter.dtype).removeprefix("torch.") for parameter in model.parameters()}),
        "nondeterministic": _nondeterministic(model, device),
    }


def _nondeterministic(model: nn.Module, device: torch.device) -> list[str] | None:
    if device.type == "cpu":
        return []  # with a fixed number of threads, sums are in a fixed order there
    if device.type != "cuda":
        return None
    if torch.are_deterministic_algorithms_enabled():
        return []
    layers = {type(module).__name__ for module in model.modules()} & _UNORDERED
    found = [*sorted(layers), "scaled_dot_product_attention, index_add and scatter_add in the backward pass"]
    found += ["cuDNN's choice of kernels"] if torch.backends.cudnn.benchmark else []
    return found + ([] if os.environ.get(_WORKSPACE) else [f"cuBLAS without {_WORKSPACE}"])
