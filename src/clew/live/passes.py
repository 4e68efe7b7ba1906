"""Passes through the data: forward, backward, optimizer, schedule; and those that only measure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from clew.live.plain import Live
from clew.live.torch_data import Samples, halves, moved
from clew.live.torch_numbers import Numbers
from clew.live.torch_scoring import undisturbed

Metric = Callable[[Any, Any], Any]
"""``metric(outputs, targets)``: a number for a batch, the mean of its samples'."""
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_PREFIXES = {"validation": "val", "test": "test"}
_LARGEST = 256
"""Samples of a pass that only measures, where no loader says how many."""


class Manner(Protocol):
    """How to train; see :class:`clew.live.fit.Trainer`."""

    @property
    def precision(self) -> Literal["fp32", "bf16", "fp16"]:
        """Of the forward pass."""

    @property
    def validate_every(self) -> int | None:
        """Steps between validations."""

    @property
    def schedule_by(self) -> Literal["step", "epoch"]:
        """When the schedule moves."""

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """What to measure besides the loss."""


class Passes:
    """Trains and measures a model.

    Args:
        model: On its device.
        optimizer: Of its parameters.
        loss_fn: ``loss_fn(model(inputs), targets)``, the mean of a batch.
        scheduler: What moves the learning rate; None for nothing.
        manner: How.
        samples: The samples by the name of their split.

    Attributes:
        scaler: Scales the loss; None where the precision needs none.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        loss_fn: Callable[..., Any],
        scheduler: Any,
        manner: Manner,
        samples: Mapping[str, Samples],
    ) -> None:
        self._model = model
        self._optimizer = optimizer
        self._loss_fn = loss_fn
        self._scheduler = scheduler
        self._manner = manner
        self._samples = samples
        self._device = next((one.device for one in model.parameters()), torch.device("cpu"))
        self.scaler = torch.amp.GradScaler(self._device.type) if manner.precision == "fp16" else None

    def numbers(self) -> dict[str, Any]:
        """Return what can be set of the optimizer, as the program has made it."""
        schedulers = [] if self._scheduler is None else [self._scheduler]
        found = Numbers(self._optimizer, schedulers).settings(lambda name: "")
        return {setting.name: setting.read() for setting in found} | {"batch_size": self._samples["train"].batch_size}

    def around(self) -> AbstractContextManager[Any]:
        """Surround a forward pass with the precision."""
        dtype = _DTYPES[self._manner.precision]
        return torch.autocast(self._device.type, dtype=dtype, enabled=dtype != torch.float32)

    def train(self, live: Live) -> None:
        """Go from where the run stands to its last step."""
        self._model.train()
        every = self._manner.validate_every
        for batch in live.batches():
            turned, step = self._has_turned(live), live.step_number + 1
            metrics, rating = self._update(live, batch), None
            last = step == live.total_steps
            if "validation" in self._samples and (last or (turned if every is None else step % every == 0)):
                with live.surface.idle():
                    found = self.measure("validation")
                live.session.log(step, found)
                rating = found["val_loss"]
            self._schedule(turned=turned, rating=rating)
            live.step(rating=rating, **metrics)

    def measure(self, split: str) -> dict[str, float]:
        """Return the mean loss and the other metrics over all samples of a split; changes nothing."""
        samples, sums, prefix = self._samples[split], dict[str, Tensor | float](), _PREFIXES[split]
        size = samples.batch_size or _LARGEST
        with undisturbed(self._model), self.around():
            for first in range(0, samples.size, size):
                ids = np.arange(first, min(first + size, samples.size), dtype=np.int64)
                outputs, targets = self._forward(samples.fetch(ids))
                found = {"loss": self._loss_fn(outputs, targets)}
                found |= {name: metric(outputs, targets) for name, metric in self._manner.metrics.items()}
                for name, value in found.items():
                    sums[name] = sums.get(name, 0.0) + value * len(ids)
        return {f"{prefix}_{name}": float(total) / samples.size for name, total in sums.items()}

    def _update(self, live: Live, batch: Any) -> dict[str, Any]:
        """Make an optimizer step, and return its metrics as they lie on the device."""
        with self.around():
            outputs, targets = self._forward(batch)
            loss = self._loss_fn(outputs, targets)
        # Gradients are kept until here: who asks how the training is doing between two steps looks at them.
        self._optimizer.zero_grad(set_to_none=True)
        if self.scaler is None:
            loss.backward()
            norm = live.clip_gradients()
            self._optimizer.step()
        else:
            self.scaler.scale(loss).backward()
            self.scaler.unscale_(self._optimizer)
            norm = live.clip_gradients()
            self.scaler.step(self._optimizer)
            self.scaler.update()
        return {"loss": loss, "grad_norm": norm, "lr": self._optimizer.param_groups[0]["lr"]}

    def _forward(self, batch: Any) -> tuple[Any, Any]:
        inputs, targets = halves(moved(batch, self._device))
        return (self._model(*inputs) if isinstance(inputs, tuple) else self._model(inputs)), targets

    def _has_turned(self, live: Live) -> bool:
        """Whether with the batch that was just taken all samples have been handed out once more."""
        feed = live.surface.feed
        assert feed is not None
        return feed.samples_seen // feed.num_samples > (feed.samples_seen - feed.batch_size) // feed.num_samples

    def _schedule(self, *, turned: bool, rating: float | None) -> None:
        if isinstance(self._scheduler, ReduceLROnPlateau):
            if rating is not None:
                self._scheduler.step(rating)
        elif self._scheduler is not None and (turned or self._manner.schedule_by == "step"):
            self._scheduler.step()
