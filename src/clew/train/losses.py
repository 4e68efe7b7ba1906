"""Next-token loss: exact under gradient accumulation, and without waiting for the device."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clew.data.packing import IGNORED, Batch, Samples


def accumulate_gradients(
    model: nn.Module, batch: Batch, *, micro_batch_size: int, device: torch.device, precision: torch.dtype
) -> Tensor:
    """Add the gradient of a batch's mean token loss to the parameters, a part of the batch at a time.

    Each part's summed loss is divided by the number of targets in the *whole* batch. A mean of the parts' means would
    weigh tokens in short parts more, and then the result would depend on how the batch is cut.

    Returns:
        The loss, 0-d float32 on the device, not yet waited for.
    """
    num_targets = max(1, batch.num_targets)
    total = torch.zeros((), device=device)
    for inputs, targets in _parts(batch, micro_batch_size, device):
        loss = summed_loss(model, inputs, targets, precision=precision) / num_targets
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.detach()
    return total


@torch.no_grad()
def mean_loss(
    model: nn.Module,
    samples: Samples,
    *,
    num_samples: int,
    micro_batch_size: int,
    device: torch.device,
    precision: torch.dtype,
) -> float:
    """Return the mean token loss, in nats, over the first `num_samples` samples; draws nothing at random."""
    was_training = model.training
    model.eval()
    # A float32 sum stops growing at 2^24 times what is added to it. Apple's devices have nothing wider.
    total = torch.zeros((), device=device, dtype=torch.float32 if device.type == "mps" else torch.float64)
    num_targets = 0
    for start in range(0, num_samples, micro_batch_size):
        batch = samples.batch(np.arange(start, min(start + micro_batch_size, num_samples), dtype=np.int64))
        num_targets += batch.num_targets
        for inputs, targets in _parts(batch, micro_batch_size, device):
            total += summed_loss(model, inputs, targets, precision=precision)
    model.train(was_training)
    return float(total) / max(1, num_targets)


def summed_loss(model: nn.Module, inputs: Tensor, targets: Tensor, *, precision: torch.dtype) -> Tensor:
    """Return the sum of the cross-entropies, 0-d, in nats.

    Args:
        model: [B, T] int64 to logits [B, T, V].
        inputs: [B, T] int64.
        targets: [B, T] int64, `IGNORED` where there is none.
        precision: Dtype of the matrix products; the loss itself is computed in float32 at least.
    """
    with torch.autocast(inputs.device.type, dtype=precision, enabled=precision != torch.float32):
        logits = model(inputs)
    if logits.dtype in (torch.bfloat16, torch.float16):
        logits = logits.float()
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum")


def _parts(batch: Batch, size: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Move a batch to the device at once, and yield inputs and targets of `size` samples."""
    inputs = torch.from_numpy(batch.inputs).to(device, non_blocking=True)
    targets = torch.from_numpy(batch.targets).to(device, non_blocking=True)
    yield from zip(torch.split(inputs, size), torch.split(targets, size), strict=True)
