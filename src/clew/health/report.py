"""Puts a report of a training's health together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from clew.health.activations import collect_activations
from clew.health.clock import StepClock
from clew.health.collecting import Collector, Fetched, Section
from clew.health.determinism import determinism
from clew.health.distribution import collect_distribution
from clew.health.losses import loss_section, tidy
from clew.health.numerics import collect_numerics
from clew.health.verdict import judged


@torch.no_grad()
def health_report(
    model: nn.Module,
    optimizers: Any = (),
    *,
    forward: Callable[[], object] | None = None,
    losses: Sequence[Tensor | float] | Tensor = (),
    timings: StepClock | None = None,
    data: Mapping[str, Any] | None = None,
    step: int | None = None,
    together: bool = True,
) -> dict[str, Any]:
    """Say how a training is doing, between two of its steps; nothing that trains is changed.

    Everything is computed where the model is and fetched in one transfer. Call it before gradients are dropped where
    that is possible: of SGD, Muon and Nesterov the updates need them.

    Args:
        model: The model itself, not a compiled one around it.
        optimizers: What trains it: a ``torch.optim.Optimizer`` or several, bare or wrapped by Accelerate or Lightning.
        forward: Runs one batch through the model, such as ``lambda: model(batch)``; it is called without gradients, in
            evaluation mode, and the random generators are as before. None leaves the activations out.
        losses: Of the recent steps, the newest last: numbers, tensors [] on any device, or one tensor [N].
        timings: What the trainer's steps were timed by; None leaves the throughput out.
        data: What the trainer knows of its data, as JSON: ``seed``, ``sampler``, whatever is worth saying.
        step: The finished steps, if there is a loss for each step: spikes are then told with theirs.
        together: Whether all ranks of a distributed training call this at the same step. With False the distribution is
            left out, since a rank that asks alone would wait for ever.

    Returns:
        JSON: ``verdict`` (``well``, ``look`` or ``bad``), ``findings`` (each with ``word``, ``area``, ``text``), and
        the numbers behind them: ``numerics`` (norms, update ratios and what is not finite, by layer), ``losses``,
        ``activations``, ``throughput``, ``determinism``, ``distribution``. What is not known is None, never 0; what is
        not finite is the text ``nan`` or ``inf``.

    Raises:
        UserError: If the weights are sharded over ranks.
    """
    device = next((one.device for one in model.parameters() if not one.is_meta), torch.device("cpu"))
    collector = Collector(device)
    throughput = timed(timings, device)
    numerics = collect_numerics(collector, model, optimizers if isinstance(optimizers, Iterable) else (optimizers,))
    recent = _collect_losses(collector, losses, step)
    activations = collect_activations(collector, model, forward)
    distribution = collect_distribution(collector, throughput, together=together)
    fetched = collector.fetch()
    return judged(
        {
            "step": step,
            "numerics": numerics(fetched),
            "losses": recent(fetched),
            "activations": activations(fetched),
            "throughput": throughput,
            "determinism": determinism(model, device, data),
            "distribution": distribution(fetched),
        }
    )


def timed(timings: StepClock | None, device: torch.device) -> dict[str, Any] | None:
    """Return the throughput of the recent steps and how idle the GPU is; None where nobody takes the time."""
    if timings is None:
        return None
    found = timings.summary()
    return {name: tidy(value) for name, value in found.items()} | {"steps": found["steps"], "gpu_idle": _idle(device)}


def _collect_losses(collector: Collector, losses: Sequence[Tensor | float] | Tensor, step: int | None) -> Section:
    """Ask for the losses: those on a device come with all the other figures."""
    if isinstance(losses, Tensor):
        where = collector.add(losses)
        return lambda fetched: loss_section(fetched[where], step=step)
    places = [collector.add(loss) if isinstance(loss, Tensor) else float(loss) for loss in losses]

    def read(fetched: Fetched) -> Any:
        values = [place if isinstance(place, float) else fetched[place][0] for place in places]
        return loss_section(values, step=step)

    return read


def _idle(device: torch.device) -> float | None:
    """The share of the driver's last sampling period in which no kernel ran; None without a reading."""
    if device.type != "cuda":
        return None
    try:
        return 1 - torch.cuda.utilization(device) / 100
    except Exception:  # the driver's library is missing, or does not know this GPU: no reading is no zero
        return None
