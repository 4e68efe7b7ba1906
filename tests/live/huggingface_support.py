"""A ``Trainer`` of a model with one weight, on numbered samples, that writes down what it was given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainingArguments

from clew.live.huggingface import SessionCallback, attach
from clew.runs import Owner, Run, RunInfo, State, create_run
from clew.session import CheckpointConfig, RunStopped, Session
from clew.session.surface import LiveConfig


class Line(nn.Module):
    """y = w x, and the loss against y = x."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the mean of squares."""
        return {"loss": ((self.weight * x - labels) ** 2).mean()}


class Numbers:
    """Sample i is the number i."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, number: int) -> dict[str, float]:
        return {"x": number / self.size, "labels": number / self.size, "number": number}


class Recorder(TrainerCallback):  # type: ignore[misc]
    """Knows which samples each optimizer step was made of."""

    def __init__(self) -> None:
        self.steps: list[list[int]] = []
        self.since: list[int] = []

    def collate(self, rows: list[dict[str, float]]) -> dict[str, Tensor]:
        """Make a batch, and take its samples down."""
        self.since += [round(row["x"] * 16) for row in rows]
        return {name: torch.tensor([[row[name]] for row in rows]) for name in ("x", "labels")}

    def on_step_end(self, *args: Any, **_: Any) -> None:
        """A step was made of what was fetched since the last one."""
        self.steps.append(self.since)
        self.since = []


def numbers_trainer(folder: Path, recorder: Recorder, *, size: int = 16, **arguments: Any) -> Trainer:
    """Build a trainer for 16 numbers; four of them make a step, two a forward pass."""
    given: dict[str, Any] = {
        "output_dir": str(folder / "out"),
        "max_steps": 8,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "learning_rate": 0.1,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "seed": 3,
    }
    return Trainer(
        model=Line(),
        args=TrainingArguments(**given | arguments),
        train_dataset=Numbers(size),
        data_collator=recorder.collate,
        callbacks=[recorder],
    )


def attempt(
    run: Run,
    trainer: Trainer,
    *,
    every: int = 2,
    live: LiveConfig | None = None,
    at: dict[int, Callable[[SessionCallback], object]] | None = None,
) -> bool:
    """Train under a session as the next attempt; return whether the run came to its end.

    Args:
        run: The run.
        trainer: The trainer.
        every: Steps between two checkpoints.
        live: What the run notes about itself.
        at: What is done at the boundaries after these steps.
    """
    number = run.states.queue()
    for state in (State.STARTING, State.RUNNING):
        run.states.move(state, attempt=number, owner=Owner.current())
    try:
        with Session(run, None, number) as session:
            callback = attach(session, trainer, policy=CheckpointConfig(every=every), live=live)
            _call_at(session, callback, at or {})
            trainer.train()
    except RunStopped as stopped:
        run.states.move(stopped.state, attempt=number)
        return False
    except BaseException:
        run.states.move(State.FAILED, attempt=number)
        raise
    run.states.move(State.COMPLETED, attempt=number)
    return True


def make_run(folder: Path, name: str = "r") -> Run:
    """Make an empty run."""
    return create_run(folder / "runs", RunInfo(id=name, job="script"), "{}", {})


def _call_at(
    session: Session[Any], callback: SessionCallback, at: dict[int, Callable[[SessionCallback], object]]
) -> None:
    due, boundary = session.due, session.boundary

    def standing(step: int, **options: Any) -> None:
        boundary(step, **options)
        if step in at:
            at[step](callback)

    session.due = lambda step: due(step) or step in at  # type: ignore[method-assign]
    session.boundary = standing  # type: ignore[method-assign]
