"""What a trainer keeps for its health: the times and the losses of its recent steps.

With it, a trainer's ``health`` is a few lines::

    with self._probe.data():
        batch = next(batches)
    loss = ...
    self._probe.step_done(loss, tokens=batch.num_targets)

    def health(self):
        return self._probe.report(self.model, self.optimizer, forward=lambda: self.model(batch), step=self.step)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor, nn

from clew.health.clock import WINDOW, StepClock
from clew.health.report import health_report


def kept(value: Tensor | float) -> Tensor | float:
    """Return a metric of a step as it can be kept; waits for no device.

    Args:
        value: A number, or a tensor of one element.

    Returns:
        A number, or a copy on the same device: the trainer may go on summing into its tensor, and a compiled one writes
        into the same one again.
    """
    return value.detach().clone() if isinstance(value, Tensor) else float(value)


class HealthProbe:
    """Remembers the recent steps of a trainer. A step costs a few microseconds, and nothing waits for the device.

    Args:
        size: How many steps to remember.
        clock: Seconds, monotonic.
    """

    def __init__(self, size: int = WINDOW, clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock = StepClock(size, clock)

    def data(self) -> AbstractContextManager[None]:
        """Surround the time in which a step waits for its data."""
        return self.clock.data()

    def pause(self) -> AbstractContextManager[None]:
        """Surround a time that is no part of a step: a validation, a checkpoint, a pause that was asked for."""
        return self.clock.pause()

    def step_done(self, loss: Tensor | float | None = None, tokens: int | None = None) -> None:
        """Say that an optimizer step is done.

        Args:
            loss: Its loss: a number, or a tensor [] that stays on its device. None where it is not known.
            tokens: What it was trained on.
        """
        self.clock.step_done(tokens, None if loss is None else kept(loss))

    def report(
        self,
        model: nn.Module,
        optimizers: Any = (),
        *,
        forward: Callable[[], object] | None = None,
        data: Mapping[str, Any] | None = None,
        step: int | None = None,
        together: bool = True,
    ) -> dict[str, Any]:
        """Say how the training is doing; the time that it takes is left out of the steps.

        Args:
            model: The model itself, not a compiled one around it.
            optimizers: One or several.
            forward: Runs one batch through the model; None leaves the activations out.
            data: What the trainer knows of its data, as JSON: ``seed``, ``sampler``, whatever is worth saying.
            step: The finished steps, if :meth:`step_done` got a loss in each.
            together: Whether all ranks of a distributed training call this at the same step.

        Returns:
            What :func:`clew.health.report.health_report` returns.
        """
        with self.clock.pause():
            return health_report(
                model,
                optimizers,
                forward=forward,
                losses=self.clock.losses,
                timings=self.clock,
                data=data,
                step=step,
                together=together,
            )
