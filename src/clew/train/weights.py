"""Weights into a model: all of them, or none."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from clew.errors import DataError


def check_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Check that weights are those of a model, by name and shape.

    Raises:
        DataError: If they are not; with the names.
    """
    parameters = dict(model.named_parameters())
    odd = sorted(parameters.keys() ^ weights.keys()) or [
        name for name, parameter in parameters.items() if parameter.shape != weights[name].shape
    ]
    if odd:
        raise DataError(
            f"the checkpoint is of another model: {', '.join(odd[:3])}",
            hint="a checkpoint fits the model that its run's config.yaml describes; start a new run",
        )


@torch.no_grad()
def copy_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy weights into a model where its own ones are: whoever shares those sees the new ones.

    Raises:
        DataError: If they are those of another model; nothing is copied then.
    """
    check_weights(model, weights)
    for name, parameter in model.named_parameters():
        parameter.copy_(weights[name])
