"""The native loop: one optimizer step at a time, and the complete state out and in.

The trainer knows nothing of runs. Whoever drives it decides when to measure, validate and save.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from clew.checkpoints.rng import rng_state, set_rng_state
from clew.checkpoints.state import load_state, save_state
from clew.data.packing import Samples
from clew.data.stream import SampleStream
from clew.errors import DataError, RunFailed
from clew.session.settings import STEPS, Setting
from clew.train.config import TrainingConfig
from clew.train.losses import accumulate_gradients, mean_loss
from clew.train.optimizers import Optimizers
from clew.train.stopping import Patience
from clew.train.switches import checkpoint_activations, compiled
from clew.train.throughput import Throughput

_STATE = "trainer"


class Trainer:
    """Trains a model on a stream of samples; a :class:`clew.session.Surface`.

    Args:
        model: [B, T] int64 to logits [B, T, V], on its device.
        samples: What it is trained on.
        config: Batch, optimizer, schedule.
        lr: Peak learning rate.
        total_steps: Length of the run, which the schedule is stretched over.
        seed: Of the sample order.
        clock: Seconds, for the throughput.

    Attributes:
        step_number: Finished optimizer steps.
        samples_seen: Position in the sample stream.
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
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.model = model
        self.samples = samples
        self.config = config
        self.lr = lr
        self.total_steps = total_steps
        self.max_grad_norm = config.max_grad_norm
        self.stream = SampleStream(len(samples), seed)
        self.optimizers = Optimizers(model, config.optimizer, lr=lr)
        self.step_number = 0
        self.samples_seen = 0
        self.tokens_seen = 0
        self.latest: dict[str, float] = {}
        stopping = config.early_stopping
        self.best = Patience()
        self.patience = Patience(stopping.patience, stopping.min_delta) if stopping else Patience()
        self._device = next(model.parameters()).device
        self._precision = _matmul_dtype(config.precision, self._device)
        self._micro_batch_size = config.micro_batch_size or config.batch_size
        if config.activation_checkpointing:
            checkpoint_activations(model)
        # Only for training steps: a validation has other shapes, for which everything would be compiled once more.
        self._forward = compiled(model, self._device) if config.compile else model
        self._throughput = Throughput(clock)
        # Sums since the last measurement stay on the device: to fetch them every step would make it wait.
        self._loss_sum = torch.zeros((), device=self._device)
        self._norm_sum = torch.zeros((), device=self._device)
        self._steps_summed = 0

    def step(self) -> None:
        """Make one optimizer step; nothing here waits for the device."""
        self._throughput.start()
        batch = self.samples.batch(self.stream.batch(self.samples_seen, self.config.batch_size))
        self.optimizers.zero_grad()
        loss = accumulate_gradients(
            self._forward,
            batch,
            micro_batch_size=self._micro_batch_size,
            device=self._device,
            precision=self._precision,
        )
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.max_grad_norm or math.inf)
        self.optimizers.step(self.current_lr)
        self._loss_sum += loss
        self._norm_sum += norm
        self._steps_summed += 1
        self.step_number += 1
        self.samples_seen += self.config.batch_size
        self.tokens_seen += batch.num_targets
        self._throughput.add(batch.num_targets)

    @property
    def current_lr(self) -> float:
        """Learning rate of the next step."""
        return self.lr * self.config.schedule.factor(self.step_number, self.total_steps)

    def measure(self) -> dict[str, float]:
        """Return the metrics since the last measurement (means of loss and gradient norm), and begin anew.

        Raises:
            RunFailed: If the loss or a gradient was not finite.
        """
        steps = max(1, self._steps_summed)
        loss, norm = self._finite_sums()
        metrics = {
            "loss": loss / steps,
            "grad_norm": norm / steps,
            "lr": self.lr * self.config.schedule.factor(self.step_number - 1, self.total_steps),
            "tokens": float(self.tokens_seen),
            "epoch": self.samples_seen / len(self.samples),
            "tokens_per_second": self._throughput.read(),
        }
        self._loss_sum.zero_()
        self._norm_sum.zero_()
        self._steps_summed = 0
        self.latest |= metrics
        return metrics

    def validate(self, samples: Samples) -> float:
        """Return the mean token loss, in nats, over `config.validation_samples` of these samples."""
        with self._throughput.excluded():
            loss = mean_loss(
                self.model,
                samples,
                num_samples=min(len(samples), self.config.validation_samples or len(samples)),
                micro_batch_size=self._micro_batch_size,
                device=self._device,
                precision=self._precision,
            )
        self.latest["val_loss"] = loss
        self.patience.update(self.step_number, loss)
        return loss

    def probe(self, measure: Callable[[], dict[str, float]]) -> dict[str, float]:
        """Take over metrics that somebody else measures on the model, and leave their time out of the throughput."""
        with self._throughput.excluded():
            metrics = measure()
        self.latest |= metrics
        return metrics

    def settings(self) -> Sequence[Setting]:
        """Return what can be set between two steps; the schedule stretches over the new number of steps."""
        return [
            Setting("lr", lambda: self.lr, partial(setattr, self, "lr"), low=0, open=True),
            Setting(
                "weight_decay",
                lambda: self.optimizers.weight_decay,
                partial(setattr, self.optimizers, "weight_decay"),
                low=0,
            ),
            Setting("max_grad_norm", lambda: self.max_grad_norm, partial(setattr, self, "max_grad_norm"), 0, open=True),
            Setting(
                STEPS, lambda: self.total_steps, partial(setattr, self, "total_steps"), self.step_number + 1, whole=True
            ),
        ]

    def idle(self) -> AbstractContextManager[None]:
        """Surround a time in which nothing is done: it is left out of the throughput."""
        return self._throughput.excluded()

    def save(self, directory: Path) -> None:
        """Write the complete state.

        Raises:
            RunFailed: If the loss or a gradient was not finite: such a state is not worth coming back to.
        """
        with self._throughput.excluded():
            self._finite_sums()
            state = {
                "model": dict(self.model.named_parameters()),
                "optimizer": self.optimizers.state(),
                "step_number": self.step_number,
                "samples_seen": self.samples_seen,
                "tokens_seen": self.tokens_seen,
                "latest": self.latest,
                "best": self.best.state(),
                "patience": self.patience.state(),
                "sums": [self._loss_sum, self._norm_sum, self._steps_summed],
                "samples": self.samples.digest,
                "rng": rng_state(),
            }
            save_state(directory, _STATE, state)

    def load(self, directory: Path) -> None:
        """Go on from what :meth:`save` wrote; from here everything happens bitwise as it would have there.

        Raises:
            DataError: If that state was trained on other samples.
        """
        state = load_state(directory, _STATE)
        if state["samples"] != self.samples.digest:
            raise DataError(
                "the training samples are not those that this checkpoint was trained on",
                where=str(directory),
                hint="bring back the task's documents as they were, or start a new run",
            )
        _copy_weights(self.model, state["model"])
        self.optimizers.load(state["optimizer"])
        self.step_number = state["step_number"]
        self.samples_seen = state["samples_seen"]
        self.tokens_seen = state["tokens_seen"]
        self.latest = state["latest"]
        # Checkpoints of versions without these know nothing of a best.
        self.best.load(state.get("best", self.best.state()))
        self.patience.load(state.get("patience", self.patience.state()))
        loss_sum, norm_sum, self._steps_summed = state["sums"]
        self._loss_sum.copy_(loss_sum)
        self._norm_sum.copy_(norm_sum)
        set_rng_state(state["rng"])

    def _finite_sums(self) -> tuple[float, float]:
        """Fetch the sums; the one place where the loop waits for the device."""
        loss, norm = (float(value) for value in torch.stack((self._loss_sum, self._norm_sum)).cpu())
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise RunFailed(
                f"the loss or its gradient is no longer finite at step {self.step_number}",
                hint="lower training.lr or training.max_grad_norm, or raise training.schedule.warmup",
            )
        return loss, norm


def _matmul_dtype(precision: str, device: torch.device) -> torch.dtype:
    half = precision == "bf16" or (precision == "auto" and device.type == "cuda")
    return torch.bfloat16 if half else torch.float32


@torch.no_grad()
def _copy_weights(model: nn.Module, weights: dict[str, Tensor]) -> None:
    parameters = dict(model.named_parameters())
    odd = sorted(parameters.keys() ^ weights.keys()) or [
        name for name, parameter in parameters.items() if parameter.shape != weights[name].shape
    ]
    if odd:
        raise DataError(
            f"the checkpoint is of another model: {', '.join(odd[:3])}",
            hint="a checkpoint fits the model that its run's config.yaml describes; start a new run",
        )
    for name, parameter in parameters.items():
        parameter.copy_(weights[name])
