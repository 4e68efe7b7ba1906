"""The loss on logits of which each process has those of some words: PyTorch's ``loss_parallel``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import loss_parallel
from torch.nn import functional as F


def summed_loss(logits: DTensor, targets: Tensor, *, ignored: int) -> Tensor:
    """Return the sum of the cross-entropies, 0-d, in nats, on every process; three numbers a position are sent.

    Args:
        logits: [N, V] float32, split along V over one mesh axis.
        targets: [N] int64, the same on all processes of that axis.
        ignored: The target that is none.
    """
    total: Tensor = _Summed.apply(logits.to_local(), logits.detach(), targets, ignored)  # type: ignore[no-untyped-call]
    return total


class _Summed(torch.autograd.Function):
    """The loss, and with it its gradient: ``loss_parallel`` wants both within its context, which no training is."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, like: DTensor, targets: Tensor, ignored: int) -> Tensor:
        wants_gradient = ctx.needs_input_grad[0]
        with torch.set_grad_enabled(wants_gradient), loss_parallel():
            own = part.detach().requires_grad_(wants_gradient)
            logits = DTensor.from_local(
                own, like.device_mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride()
            )
            loss = F.cross_entropy(logits, targets, ignore_index=ignored, reduction="sum")
            if wants_gradient:
                ctx.save_for_backward(*torch.autograd.grad(loss, own))
        assert isinstance(loss, DTensor)
        return loss.to_local().detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (own,) = ctx.saved_tensors
        return own * gradient, None, None, None
