"""Small modules for Lightning, and attempts at runs of them in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from clew.live.lightning import attach
from clew.runs import Owner, Run, RunInfo, State, create_run
from clew.session import CheckpointConfig, RunStopped, Session

SAMPLES = 40
WARNINGS = [
    # Lightning 2.6 with PyTorch 2.13, and what it says of very small trainings.
    pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.. is deprecated:FutureWarning"),
    pytest.mark.filterwarnings(
        "ignore:You defined a `validation_step` but have no `val_dataloader`. Skipping val loop"
    ),
    pytest.mark.filterwarnings(
        "ignore:Your `IterableDataset` has `__len__` defined. In combination with multi-process"
    ),
    pytest.mark.filterwarnings("ignore:The 'val_dataloader' does not have many workers"),
]


class Mlp(lightning.LightningModule):
    """Dropout and batch norm, so that random numbers and buffers count."""

    def __init__(self, optimizer: str = "sgd", lr: float = 0.05) -> None:
        super().__init__()
        torch.manual_seed(0)
        np.random.seed(0)
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))
        self.optimizer, self.lr = optimizer, lr
        self.batches: list[list[int]] = []

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layers(inputs)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        inputs, labels, numbers = batch
        if self.training:
            self.batches.append(numbers.tolist())
        loss = F.cross_entropy(self(inputs), labels)
        self.log("loss", loss, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        inputs, labels, _ = batch
        self.log("val_loss", F.cross_entropy(self(inputs), labels))

    def configure_optimizers(self) -> Any:
        if self.optimizer == "sgd":
            return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9, weight_decay=0.01)
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 40)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Cnn(Mlp):
    """The same for pictures."""

    def __init__(self) -> None:
        super().__init__("adamw", 0.01)
        self.layers = nn.Sequential(
            nn.Unflatten(1, (1, 2, 2)),
            nn.Conv2d(1, 4, 2),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Dropout2d(0.2),
            nn.Flatten(),
            nn.Linear(4, 3),
        )


def samples(count: int = SAMPLES, seed: int = 1) -> TensorDataset:
    """Points in four dimensions, three kinds of them, and the number of each."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (count,), generator=generator)
    inputs = torch.randn(count, 4, generator=generator) + labels[:, None]
    return TensorDataset(inputs, labels, torch.arange(count))


def loader(batch_size: int = 4, **options: Any) -> DataLoader[Any]:
    """The training data, shuffled."""
    return DataLoader(samples(), batch_size=batch_size, **{"shuffle": True, **options})


def new_trainer(**options: Any) -> lightning.Trainer:
    """A trainer that leaves nothing behind and says nothing."""
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    plain = {"accelerator": "cpu", "log_every_n_steps": 1, "num_sanity_val_steps": 0, "max_steps": 24}
    return lightning.Trainer(**{**quiet, **plain, **options})


def new_run(folder: Path) -> Run:
    """Make an empty run."""
    return create_run(folder / "runs", RunInfo(id="r", job="script"), "{}", {})


class Fit:
    """What one attempt at a run does."""

    def __init__(self, module: Any = Mlp, data: Any = loader, validation: bool = True, every: int = 5, **options: Any):
        self.module, self.data, self.validation, self.every, self.options = module, data, validation, every, options
        self.attached: dict[str, Any] = {}

    def __call__(self, run: Run) -> Any:
        """Make an attempt, and return the module; the run's state says how it ended."""
        number = run.states.queue()
        for state in (State.STARTING, State.RUNNING):
            run.states.move(state, attempt=number, owner=Owner.current())
        module, trainer = self.module(), new_trainer(**self.options)
        validation = DataLoader(samples(12, seed=2), batch_size=6) if self.validation else None
        try:
            with Session(run, None, number) as session:
                attach(
                    session,
                    trainer,
                    seed=3,
                    checkpoint=CheckpointConfig(every=self.every, keep_last=9),
                    **self.attached,
                )
                trainer.fit(module, self.data(), validation)
                run, number = session.run, session.attempt  # it may have gone on as a child
        except RunStopped as stopped:
            run.states.move(stopped.state, attempt=number)
            return module
        except BaseException:
            run.states.move(State.FAILED, attempt=number)
            raise
        run.states.move(State.COMPLETED, attempt=number)
        return module


def weights(module: nn.Module) -> dict[str, bytes]:
    """All parameters and buffers, bit by bit."""
    return {name: value.numpy().tobytes() for name, value in module.state_dict().items()}


def metrics_of(run: Run) -> dict[int, dict[str, float]]:
    """Everything that was logged, by step."""
    found: dict[int, dict[str, float]] = {}
    for event in run.events("metric"):
        found.setdefault(event["step"], {}).update(event["values"])
    return found
