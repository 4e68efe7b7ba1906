"""Switches that change what a step costs and not what it computes: activation checkpointing and compilation."""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from clew.errors import UserError


def checkpoint_activations(model: nn.Module) -> None:
    """Keep only each layer's input for the backward pass, and compute the rest of it again there.

    A model of n layers then holds n inputs and the activations of one layer (Chen et al. 2016, arXiv:1604.06174).

    Args:
        model: Its ``layers`` are the parts that are computed again.
    """
    for layer in model.get_submodule("layers").children():
        layer.forward = functools.partial(_recomputed, layer.forward)


def _recomputed(forward: Callable[..., Any], *inputs: Any) -> Any:
    """Run a layer; its activations are dropped where a backward pass would need them."""
    return checkpoint(forward, *inputs, use_reentrant=False) if torch.is_grad_enabled() else forward(*inputs)


def compiled(model: nn.Module, device: torch.device) -> nn.Module:
    """Return a compiled form of a model, which shares its parameters.

    Raises:
        UserError: If code for the CPU is wanted and there is no C++ compiler.
    """
    compiler = os.environ.get("CXX", "g++")
    if device.type == "cpu" and shutil.which(compiler) is None:
        raise UserError(
            f"training.compile needs a C++ compiler, and there is no {compiler!r} on this machine",
            hint="install one, name it in the environment variable CXX, or set training.compile=false",
        )
    made: nn.Module = torch.compile(model)  # type: ignore[assignment, unused-ignore]
    return made
