"""Next-token loss: exact under gradient accumulation, and without waiting for the device."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from clew.data.packing import Batch, Samples
from clew.train.slices import Slices, Whole


def accumulate_gradients(
    model: nn.Module,
    batch: Batch,
    *,
    micro_batch_size: int,
    device: torch.device,
    precision: torch.dtype,
    num_targets: int | None = None,
    before_pass: Callable[[bool], None] = lambda last: None,
    slices: Slices | None = None,
) -> Tensor:
    """Add the gradient of a batch's mean token loss to the parameters, a part of the batch at a time.

    Each part's summed loss is divided by the number of targets in the *whole* batch. A mean of the parts' means would
    weigh tokens in short parts more, and then the result would depend on how the batch is cut.

    Args:
        model: [B, T] int64 to logits [B, T, V].
        batch: What this process computes of the batch.
        micro_batch_size: Samples in one part.
        device: Where the model is.
        precision: Dtype of the matrix products.
        num_targets: Of the whole batch, where this process has a slice of it.
        before_pass: Told before each forward and backward pass whether it is the last one.
        slices: How the training is cut among processes; None for one.

    Returns:
        The loss, 0-d float32 on the device, not yet waited for; of a slice, its share of the loss.
    """
    num_targets = max(1, batch.num_targets if num_targets is None else num_targets)
    total = torch.zeros((), device=device)
    parts = math.ceil(len(batch.inputs) / micro_batch_size)
    for number, (inputs, targets) in enumerate(_parts(batch, micro_batch_size, device), 1):
        before_pass(number == parts)
        loss = summed_loss(model, inputs, targets, precision=precision, slices=slices) / num_targets
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
    slices: Slices | None = None,
) -> float:
    """Return the mean token loss, in nats, over the first `num_samples` samples; draws nothing at random.

    Args:
        model: [B, T] int64 to logits [B, T, V].
        samples: What to measure on.
        num_samples: How many of them.
        micro_batch_size: Samples in one forward pass of a process.
        device: Where the model is.
        precision: Dtype of the matrix products.
        slices: How the samples are cut among processes; None for one.
    """
    slices = slices or Whole()
    was_training = model.training
    model.eval()
    # A float32 sum stops growing at 2^24 times what is added to it. Apple's devices have nothing wider.
    total = torch.zeros((), device=device, dtype=torch.float32 if device.type == "mps" else torch.float64)
    num_targets = 0
    for start in range(0, num_samples, micro_batch_size):
        ids = np.arange(start, min(start + micro_batch_size, num_samples), dtype=np.int64)
        batch = slices.batch(samples, ids)
        num_targets += batch.num_targets
        for inputs, targets in _parts(batch, micro_batch_size, device):
            total += summed_loss(model, inputs, targets, precision=precision, slices=slices)
    model.train(was_training)
    return float(slices.total(total)) / max(1, slices.count(num_targets))


def summed_loss(
    model: nn.Module, inputs: Tensor, targets: Tensor, *, precision: torch.dtype, slices: Slices | None = None
) -> Tensor:
    """Return the sum of the cross-entropies, 0-d, in nats.

    Args:
        model: [B, T] int64 to logits [B, T, V].
        inputs: [B, T] int64.
        targets: [B, T] int64, `IGNORED` where there is none.
        precision: Dtype of the matrix products; the loss itself is computed in float32 at least.
        slices: How the training is cut among processes; None for one.
    """
    with torch.autocast(inputs.device.type, dtype=precision, enabled=precision != torch.float32):
        logits = model(inputs)
    if logits.dtype in (torch.bfloat16, torch.float16):
        logits = logits.float()
    return (slices or Whole()).loss(logits.flatten(0, 1), targets.flatten())


def _parts(batch: Batch, size: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Move a batch to the device at once, and yield inputs and targets of `size` samples."""
    inputs = torch.from_numpy(batch.inputs).to(device, non_blocking=True)
    targets = torch.from_numpy(batch.targets).to(device, non_blocking=True)
    yield from zip(torch.split(inputs, size), torch.split(targets, size), strict=True)
