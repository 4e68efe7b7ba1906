"""Any PyTorch model, trained in one call, with the whole live layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from clew.errors import UserError
from clew.live.passes import Metric, Passes
from clew.live.plain import TrainingWords, session
from clew.live.script import newest_metrics
from clew.live.torch_data import Samples, samples_of
from clew.runs import Run
from clew.session import CheckpointConfig
from clew.session.surface import LiveConfig


@dataclass(frozen=True)
class Fitted:
    """What came of a training.

    Attributes:
        metrics: The last value of everything that was logged, and ``test_loss`` with the others of a test.
        steps: Finished optimizer steps.
        run: Its run.
    """

    metrics: dict[str, float]
    steps: int
    run: Run


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """Trains any PyTorch model on batches of inputs and targets, as a run that can be steered. It waits for nobody.

    Attributes:
        project: The run's name. A script that is started again goes on with it; other numbers need another name.
        precision: Of the forward pass: ``fp32``, or autocast to ``bf16`` or ``fp16`` (with scaled losses).
        max_grad_norm: Where gradients are clipped; None does not, until it is set.
        validate_every: Validate after so many steps; None does so when all samples have been seen once more.
        log_every: Log the means of so many steps.
        schedule_by: When the schedule moves: with every step, or when all samples have been seen once more. One that
            waits for a plateau is told of each validation.
        metrics: What to measure in a validation besides the loss: name to ``metric(outputs, targets)``.
        losses: ``losses(batch)`` gives the loss of each sample [B], where ``loss_fn`` does not say enough.
        params: The script's own numbers and words; ``lr`` and the names of other settings put those in force.
        seed: Of the sample order.
        checkpoint: When to save, and what to keep; a number saves after so many steps.
        live: What the run notes about itself, and what it does when the loss is no longer finite.
        workspace: Where runs are kept; None takes ``$CLEW_WORKSPACE``, else the current folder.
        notes: Free text that is kept with the run.
        track: Trackers, such as ``{"type": "tensorboard"}``.
    """

    project: str = ""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    max_grad_norm: float | None = None
    validate_every: int | None = None
    log_every: int = 10
    schedule_by: Literal["step", "epoch"] = "step"
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    losses: Callable[[Any], Tensor] | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    checkpoint: CheckpointConfig | int | None = None
    live: LiveConfig | None = None
    workspace: Path | str | None = None
    notes: str = ""
    track: Sequence[Mapping[str, Any]] = ()

    def fit(
        self,
        model: nn.Module,
        optimizer: Any,
        loss_fn: Callable[..., Any],
        train_loader: Any,
        val_loader: Any = None,
        test_loader: Any = None,
        *,
        max_steps: int | None = None,
        epochs: float | None = None,
        scheduler: Any = None,
    ) -> Fitted:
        """Train to the last step, with validations, and test at the end.

        Args:
            model: On the device on which it is to train.
            optimizer: Of its parameters.
            loss_fn: ``loss_fn(model(inputs), targets)``, the mean of a batch.
            train_loader: A ``DataLoader`` of a data set with numbered samples; its order is taken over.
            val_loader: Another one, for the validations; None makes none.
            test_loader: Another one, for the end; None makes no test.
            max_steps: How far to go, in optimizer steps.
            epochs: The same in passes over the data; one of the two.
            scheduler: What moves the learning rate.

        Returns:
            What came of it.

        Raises:
            UserError: If it is not said how far to go, or the data cannot be numbered.
        """
        given = {"train": train_loader, "validation": val_loader, "test": test_loader}
        splits = {name: data for name, data in given.items() if data is not None}
        samples = {name: samples_of(data) for name, data in splits.items()}
        steps = _steps(samples["train"], max_steps, epochs)
        work = Passes(model, optimizer, loss_fn, scheduler, self, samples)
        training: TrainingWords = {
            "model": model,
            "optimizer": optimizer,
            "scheduler": scheduler,
            "scaler": work.scaler,
            "data": train_loader,
            "steps": steps,
            "max_grad_norm": self.max_grad_norm,
            "loss_fn": loss_fn,
            "around": work.around,
        }
        if val_loader is not None:
            training |= {"validation": val_loader, "evaluate": partial(work.measure, "validation")}
        if test_loader is not None:
            training["test"] = test_loader
        if self.losses is not None:
            training["losses"] = self.losses
        with session(self.project, params=self._params(work, steps), **self._words(), **training) as live:
            work.train(live)
            if test_loader is not None:
                live.log(**work.measure("test"))
        return Fitted(newest_metrics(live.session), live.step_number, live.session.run)

    def _params(self, work: Passes, steps: int) -> dict[str, Any]:
        """What the run's config is to say of the training; what this trainer was given says more."""
        said = {"precision": self.precision, "max_grad_norm": self.max_grad_norm, "schedule_by": self.schedule_by}
        return {**work.numbers(), "steps": steps, **said, "validate_every": self.validate_every, **self.params}

    def _words(self) -> dict[str, Any]:
        names = ("seed", "log_every", "checkpoint", "live", "workspace", "notes", "track")
        return {name: getattr(self, name) for name in names}


def _steps(samples: Samples, max_steps: int | None, epochs: float | None) -> int:
    if (max_steps is None) == (epochs is None):
        raise UserError("say how far to go: max_steps=... or epochs=...", where="fit")
    if samples.batch_size is None:
        raise UserError("the training data must say how large a batch is", where="train_loader", hint="DataLoader(...)")
    return max_steps if max_steps is not None else math.ceil(float(epochs or 0) * samples.size / samples.batch_size)
