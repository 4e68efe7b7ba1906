"""The native loop: one optimizer step at a time, and the complete state out and in.

The trainer knows nothing of runs. Whoever drives it decides when to measure, validate and save.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clew.checkpoints.digest import leaves, tensors_digest
from clew.checkpoints.shards import Place, Stored, open_state
from clew.checkpoints.snapshot import Snapshots
from clew.data.feed import Feed
from clew.data.loader import Loader
from clew.data.order import Ids
from clew.data.packing import Batch, Samples
from clew.errors import DataError
from clew.health.probe import HealthProbe
from clew.inspection.samples import Selection
from clew.session.settings import Setting
from clew.train.config import TrainingConfig
from clew.train.losses import accumulate_gradients, mean_loss
from clew.train.optimizers import Optimizers
from clew.train.saved import STATE, complete_state, read, restore, take_weights
from clew.train.settable import settable
from clew.train.slices import Slices, Whole
from clew.train.stopping import Patience
from clew.train.sums import Sums
from clew.train.switches import checkpoint_activations, compiled
from clew.train.throughput import Throughput

Export = Callable[[Mapping[str, Tensor | Stored], Path], object]
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
        slices: How the training is cut among processes; the model is split already. None for one process.
        workers: Threads that read batches ahead; 0 reads each one when it is due.
        shares: Size and share of each source that the samples are joined of; empty where they are one.
        clock: Seconds, for the throughput.

    Attributes:
        feed: Which samples come next, and how many of them make a batch.
        sums: Loss and gradient norm since the last measurement; part of the state.
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
        slices: Slices | None = None,
        workers: int = 0,
        shares: Sequence[tuple[int, float]] = (),
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.model = model
        self.samples = samples
        self.config = config
        self.lr = lr
        self.total_steps = total_steps
        self.max_grad_norm = config.max_grad_norm
        self.schedule = config.schedule
        self.feed = Feed(len(samples), seed, config.batch_size, shares=shares)
        self._loader = Loader(self._read, self.feed, workers=workers)
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
        self._health = HealthProbe(clock=clock)
        self.slices = slices or Whole()
        self.sums = Sums(self.device)
        self._snapshots = Snapshots()

    @property
    def micro_batch_size(self) -> int:
        """Samples in one forward pass."""
        return self.config.micro_batch_size or self.feed.batch_size

    def step(self) -> None:
        """Make one optimizer step; nothing here waits for the device."""
        self._throughput.start()
        with self._health.data():
            batch = self._loader.take()
            num_targets = self.slices.count(batch.num_targets)
        self.optimizers.zero_grad()
        loss = accumulate_gradients(
            self._forward,
            batch,
            micro_batch_size=self.micro_batch_size,
            device=self.device,
            precision=self.precision,
            num_targets=num_targets,
            before_pass=self._before_pass,
            slices=self.slices,
        )
        loss = self.slices.total(loss)
        norm = self.slices.clip(self.model.parameters(), self.max_grad_norm or math.inf)
        self._snapshots.settle()
        self.optimizers.step(self.current_lr)
        self.sums.add(loss, norm)
        self.step_number += 1
        self.tokens_seen += num_targets
        self._throughput.add(num_targets)
        self._health.step_done(loss, num_targets)

    @property
    def current_lr(self) -> float:
        """Learning rate of the next step."""
        return self.lr * self.schedule.factor(self.step_number, self.total_steps)

    def measure(self) -> dict[str, float]:
        """Return the metrics since the last measurement (means of loss and gradient norm), and begin anew.

        Raises:
            NotFinite: If the loss or a gradient was not finite.
        """
        loss, norm = self.sums.means(self.step_number)
        metrics = {
            "loss": loss,
            "grad_norm": norm,
            "lr": self.lr * self.schedule.factor(self.step_number - 1, self.total_steps),
            "tokens": float(self.tokens_seen),
            "epoch": self.feed.epoch,
            "tokens_per_second": self._throughput.read(),
        }
        self.sums.clear()
        self.latest |= metrics
        return metrics

    def validate(self, samples: Samples) -> float:
        """Return the mean token loss on samples, as :meth:`loss_on`, as part of the training: patience knows of it.

        Raises:
            NotFinite: If the loss or a gradient of the training was not finite.
        """
        self.sums.means(self.step_number)
        loss = self.loss_on(samples)
        self.latest["val_loss"] = loss
        self.patience.update(self.step_number, loss)
        return loss

    def loss_on(self, samples: Samples) -> float:
        """Return the mean token loss, in nats, over `config.validation_samples` of samples; changes nothing."""
        with self.idle():
            loss = mean_loss(
                self.model,
                samples,
                num_samples=min(len(samples), self.config.validation_samples or len(samples)),
                micro_batch_size=self.micro_batch_size,
                device=self.device,
                precision=self.precision,
                slices=self.slices,
            )
            self.slices.rest(self.model)
            return loss

    def probe(self, measure: Callable[[], dict[str, float]]) -> dict[str, float]:
        """Take over metrics that somebody else measures on the model, and leave their time out of the throughput.

        Raises:
            NotFinite: If the loss or a gradient of the training was not finite.
        """
        self.sums.means(self.step_number)
        with self.idle():
            metrics = measure()
        self.latest |= metrics
        return metrics

    def settings(self) -> Sequence[Setting]:
        """Return what can be set between two steps."""
        return settable(self)

    @contextmanager
    def idle(self) -> Iterator[None]:
        """Surround a time in which nothing is trained: it is left out of the throughput, and of the steps' times."""
        with self._health.pause(), self._throughput.excluded():
            yield

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
            "weights": tensors_digest(self.slices.whole(self.model.named_parameters())),
            "optimizer": tensors_digest(self.slices.whole(leaves(self.optimizers.state()))),
        }

    def health(self) -> Mapping[str, Any]:
        """Return how the training is doing, as :func:`clew.health.report.health_report` says it; changes nothing."""
        chosen = self.feed.selection
        data = {
            "seed": self.feed.seed,
            "samples_seen": self.feed.samples_seen,
            "epoch": self.feed.epoch,
            "selected": chosen.size if chosen else None,
        }
        with self.idle():
            return self._health.report(
                self.model, self.optimizers.all, forward=self._look_ahead, data=data, step=self.step_number
            )

    def reset(self, checkpoint: Path | None, *, optimizer: bool) -> None:
        """Take the weights of a checkpoint, and its optimizer's state with them; all of it, or nothing.

        Step number, data position and schedule go on. What was summed since the last measurement is dropped.

        Args:
            checkpoint: What :meth:`save` wrote; None keeps the weights.
            optimizer: Forget the optimizer's moments instead of taking those of the checkpoint.

        Raises:
            DataError: If it is no checkpoint of such a trainer, or one of another model or optimizer.
        """
        if checkpoint is not None:
            take_weights(self, read(self, checkpoint), moments=not optimizer)
        self.settle()
        if optimizer:
            self.optimizers.forget()
        self.sums.clear()

    def settle(self) -> None:
        """Wait until snapshots need the weights no longer; to be called before they are changed in another way."""
        self._snapshots.settle()

    def save(self, directory: Path) -> None:
        """Write the complete state.

        Raises:
            NotFinite: If the loss or a gradient was not finite: such a state is not worth coming back to.
        """
        with self.idle():
            state = complete_state(self)
            self._write(partial(self.slices.own, state), self.slices.places(state), directory)

    def snapshot(self) -> Callable[[Path], None]:
        """Keep the complete state of this moment, and return what writes it, in any thread; copies are made meanwhile.

        Raises:
            NotFinite: As :meth:`save`.
        """
        with self.idle():
            state = complete_state(self)
            return partial(self._write, self._snapshots.take(self.slices.own(state)), self.slices.places(state))

    def seal(self, directory: Path) -> None:
        """Write the model as other programs load it, of the parts that all processes have written."""
        if self._export is not None:
            self._export(open_state(directory, STATE)["model"], directory)

    def load(self, directory: Path) -> None:
        """Go on from what :meth:`save` wrote; from here everything happens bitwise as it would have there.

        Raises:
            DataError: If that state was trained on other samples, or is of another model or optimizer.
        """
        restore(self, directory)

    def _write(self, state: Callable[[], dict[str, Any]], places: Mapping[str, Place], directory: Path) -> None:
        complete = state()
        self.slices.write(directory, STATE, complete, places)
        if self._export is not None and isinstance(self.slices, Whole):
            self._export(complete["model"], directory)

    def _before_pass(self, last: bool) -> None:
        self.slices.before_pass(self.model, last=last)

    def _read(self, ids: Ids) -> Batch:
        return self.slices.batch(self.samples, ids)

    def _look_ahead(self) -> None:
        """Run the next samples through the model."""
        ids = self.feed.peek(min(self.feed.batch_size, self.micro_batch_size))
        inputs = torch.from_numpy(self.samples.batch(ids).inputs).to(self.device)
        with torch.autocast(self.device.type, dtype=self.precision, enabled=self.precision != torch.float32):
            self.model(inputs)
        self.slices.rest(self.model)


def _matmul_dtype(precision: str, device: torch.device) -> torch.dtype:
    half = precision == "bf16" or (precision == "auto" and device.type == "cuda")
    return torch.bfloat16 if half else torch.float32
