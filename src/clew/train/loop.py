"""The native loop: one optimizer step at a time, and the complete state out and in.

The trainer knows nothing of runs. Whoever drives it decides when to measure, validate and save.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from clew.checkpoints.digest import state_digest, tensors_digest
from clew.checkpoints.rng import rng_state, set_rng_state
from clew.checkpoints.snapshot import Snapshots
from clew.checkpoints.state import load_state, save_state
from clew.data.feed import Feed
from clew.data.packing import Samples
from clew.errors import DataError
from clew.inspection.samples import Selection
from clew.session.settings import Setting
from clew.train.config import TrainingConfig
from clew.train.losses import accumulate_gradients, mean_loss
from clew.train.optimizers import Optimizers
from clew.train.settable import settable
from clew.train.stopping import Patience
from clew.train.sums import Sums
from clew.train.switches import checkpoint_activations, compiled
from clew.train.throughput import Throughput
from clew.train.weights import check_weights, copy_weights

STATE = "trainer"
"""Stem of the files with the trainer's state, in which ``model`` leads to the weights."""

Export = Callable[[Mapping[str, Tensor], Path], object]
"""Writes weights, by name, as files beside a trainer's own ones: ``export(weights, directory)``."""


class Trainer:
    """Trains a model on a stream of samples; a :class:`clew.session.Surface`.

    Besides, it can be set, put back, compared, given other data, and saved while it trains on.

    Args:
        model: [B, T] int64 to logits [B, T, V], on its device.
        samples: What it is trained on.
        config: Batch, optimizer, schedule.
        lr: Peak learning rate.
        total_steps: Length of the run, which the schedule is stretched over.
        seed: Of the sample order.
        export: Writes the model as other programs load it into each checkpoint; None writes nothing.
        clock: Seconds, for the throughput.

    Attributes:
        feed: Which samples come next, and how many of them make a batch.
        schedule: How the learning rate moves.
        device: Where the model is.
        precision: Dtype of the matrix products.
        step_number: Finished optimizer steps.
        tokens_seen: Targets trained on.
        latest: The newest metrics, by name; part of the state.
        best: The best rating so far, for whoever rates; part of the state.
        patience: What early stopping knows of the validation losses; part of the state.
    """

    def __init__(
        self,
        model: nn.Module,
        samples: Samples,
        config: TrainingConfig,
        *,
        lr: float,
        total_steps: int,
        seed: int,
        export: Export | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.model = model
        self.samples = samples
        self.config = config
        self.lr = lr
        self.total_steps = total_steps
        self.max_grad_norm = config.max_grad_norm
        self.schedule = config.schedule
        self.feed = Feed(len(samples), seed, config.batch_size)
        self.optimizers = Optimizers(model, config.optimizer, lr=lr)
        self.step_number = 0
        self.tokens_seen = 0
        self.latest: dict[str, float] = {}
        stopping = config.early_stopping
        self.best = Patience()
        self.patience = Patience(stopping.patience, stopping.min_delta) if stopping else Patience()
        self.device = next(model.parameters()).device
        self.precision = _matmul_dtype(config.precision, self.device)
        self._export = export
        if config.activation_checkpointing:
            checkpoint_activations(model)
        # Only for training steps: a validation has other shapes, for which everything would be compiled once more.
        self._forward = compiled(model, self.device) if config.compile else model
        self._throughput = Throughput(clock)
        self._sums = Sums(self.device)
        self._snapshots = Snapshots()

    @property
    def micro_batch_size(self) -> int:
        """Samples in one forward pass."""
        return self.config.micro_batch_size or self.feed.batch_size

    def step(self) -> None:
        """Make one optimizer step; nothing here waits for the device."""
        self._throughput.start()
        batch = self.samples.batch(self.feed.take())
        self.optimizers.zero_grad()
        loss = accumulate_gradients(
            self._forward,
            batch,
            micro_batch_size=self.micro_batch_size,
            device=self.device,
            precision=self.precision,
        )
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.max_grad_norm or math.inf)
        self._snapshots.settle()
        self.optimizers.step(self.current_lr)
        self._sums.add(loss, norm)
        self.step_number += 1
        self.tokens_seen += batch.num_targets
        self._throughput.add(batch.num_targets)

    @property
    def current_lr(self) -> float:
        """Learning rate of the next step."""
        return self.lr * self.schedule.factor(self.step_number, self.total_steps)

    def measure(self) -> dict[str, float]:
        """Return the metrics since the last measurement (means of loss and gradient norm), and begin anew.

        Raises:
            NotFinite: If the loss or a gradient was not finite.
        """
        loss, norm = self._sums.means(self.step_number)
        metrics = {
            "loss": loss,
            "grad_norm": norm,
            "lr": self.lr * self.schedule.factor(self.step_number - 1, self.total_steps),
            "tokens": float(self.tokens_seen),
            "epoch": self.feed.epoch,
            "tokens_per_second": self._throughput.read(),
        }
        self._sums.clear()
        self.latest |= metrics
        return metrics

    def validate(self, samples: Samples) -> float:
        """Return the mean token loss on samples, as :meth:`loss_on`, as part of the training: patience knows of it.

        Raises:
            NotFinite: If the loss or a gradient of the training was not finite.
        """
        self._sums.means(self.step_number)
        loss = self.loss_on(samples)
        self.latest["val_loss"] = loss
        self.patience.update(self.step_number, loss)
        return loss

    def loss_on(self, samples: Samples) -> float:
        """Return the mean token loss, in nats, over `config.validation_samples` of samples; changes nothing."""
        with self._throughput.excluded():
            return mean_loss(
                self.model,
                samples,
                num_samples=min(len(samples), self.config.validation_samples or len(samples)),
                micro_batch_size=self.micro_batch_size,
                device=self.device,
                precision=self.precision,
            )

    def probe(self, measure: Callable[[], dict[str, float]]) -> dict[str, float]:
        """Take over metrics that somebody else measures on the model, and leave their time out of the throughput.

        Raises:
            NotFinite: If the loss or a gradient of the training was not finite.
        """
        self._sums.means(self.step_number)
        with self._throughput.excluded():
            metrics = measure()
        self.latest |= metrics
        return metrics

    def settings(self) -> Sequence[Setting]:
        """Return what can be set between two steps."""
        return settable(self)

    def idle(self) -> AbstractContextManager[None]:
        """Surround a time in which nothing is done: it is left out of the throughput."""
        return self._throughput.excluded()

    def select(self, selection: Selection | None) -> None:
        """Train on these samples from the next batch on, beginning an epoch of them; None is all of them again.

        Raises:
            DataError: If it names samples that there are not.
        """
        try:
            self.feed.select(selection)
        except ValueError as error:
            raise DataError(str(error)) from None

    def digests(self) -> Mapping[str, str]:
        """Return hashes of the ``weights`` and of the ``optimizer``'s state."""
        return {
            "weights": tensors_digest(self.model.named_parameters()),
            "optimizer": state_digest(self.optimizers.state()),
        }

    def reset(self, checkpoint: Path | None, *, optimizer: bool) -> None:
        """Take the weights of a checkpoint, and its optimizer's state with them; all of it, or nothing.

        Step number, data position and schedule go on. What was summed since the last measurement is dropped.

        Args:
            checkpoint: What :meth:`save` wrote; None keeps the weights.
            optimizer: Forget the optimizer's moments instead of taking those of the checkpoint.

        Raises:
            DataError: If it is no checkpoint of such a trainer, or one of another model or optimizer.
        """
        state = None if checkpoint is None else _read(checkpoint)
        if state is not None:
            check_weights(self.model, state["model"])
            if not optimizer:
                self.optimizers.check(state["optimizer"])
        self.settle()
        if state is not None:
            copy_weights(self.model, state["model"])
            if not optimizer:
                self.optimizers.load(state["optimizer"])
        if optimizer:
            self.optimizers.forget()
        self._sums.clear()

    def settle(self) -> None:
        """Wait until snapshots need the weights no longer; to be called before they are changed in another way."""
        self._snapshots.settle()

    def save(self, directory: Path) -> None:
        """Write the complete state.

        Raises:
            NotFinite: If the loss or a gradient was not finite: such a state is not worth coming back to.
        """
        with self._throughput.excluded():
            self._write(self._state, directory)

    def snapshot(self) -> Callable[[Path], None]:
        """Keep the complete state of this moment, and return what writes it, in any thread; copies are made meanwhile.

        Raises:
            NotFinite: As :meth:`save`.
        """
        with self._throughput.excluded():
            return partial(self._write, self._snapshots.take(self._state()))

    def load(self, directory: Path) -> None:
        """Go on from what :meth:`save` wrote; from here everything happens bitwise as it would have there.

        Raises:
            DataError: If that state was trained on other samples, or is of another model or optimizer.
        """
        state = _read(directory)
        if state["samples"] != self.samples.digest:
            raise DataError(
                "the training samples are not those that this checkpoint was trained on",
                where=str(directory),
                hint="bring back the task's documents as they were, or start a new run",
            )
        check_weights(self.model, state["model"])
        self.optimizers.check(state["optimizer"])
        self.settle()
        copy_weights(self.model, state["model"])
        self.optimizers.load(state["optimizer"])
        self.step_number = state["step_number"]
        # Checkpoints of versions without a feed know only its position, and those before them nothing of a best.
        self.feed.load(state.get("feed") or {"samples_seen": state["samples_seen"], "since": 0, "selection": None})
        self.tokens_seen = state["tokens_seen"]
        self.latest = state["latest"]
        self.best.load(state.get("best", self.best.state()))
        self.patience.load(state.get("patience", self.patience.state()))
        self._sums.load(state["sums"])
        set_rng_state(state["rng"])

    def _state(self) -> dict[str, Any]:
        """The complete state; its tensors are those that train, or nobody else's."""
        self._sums.means(self.step_number)
        return {
            "model": dict(self.model.named_parameters()),
            "optimizer": self.optimizers.state(),
            "step_number": self.step_number,
            "feed": _storable(self.feed.state()),
            "tokens_seen": self.tokens_seen,
            "latest": dict(self.latest),
            "best": self.best.state(),
            "patience": self.patience.state(),
            "sums": self._sums.state(),
            "samples": self.samples.digest,
            "rng": rng_state(),
        }

    def _write(self, state: Callable[[], dict[str, Any]], directory: Path) -> None:
        complete = state()
        save_state(directory, STATE, complete)
        if self._export is not None:
            self._export(complete["model"], directory)


def _read(directory: Path) -> dict[str, Any]:
    try:
        state: dict[str, Any] = load_state(directory, STATE)
    except FileNotFoundError:
        raise DataError("this is no checkpoint of a pretraining", where=str(directory)) from None
    return state


def _storable(value: Any) -> Any:
    """Give arrays of ids the form that a checkpoint can hold."""
    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.array(value))
    if isinstance(value, Mapping):
        return {key: _storable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_storable(item) for item in value]
    return value


def _matmul_dtype(precision: str, device: torch.device) -> torch.dtype:
    half = precision == "bf16" or (precision == "auto" and device.type == "cuda")
    return torch.bfloat16 if half else torch.float32
