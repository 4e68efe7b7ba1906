"""What of the native trainer can be set between two steps. The settings stand alone: their order does not matter."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from clew.session.settings import STEPS, Setting
from clew.train.schedules import SCHEDULES, named

if TYPE_CHECKING:
    from clew.train.loop import Trainer


def settable(trainer: Trainer) -> Sequence[Setting]:
    """Return what can be set; the schedule stretches over a new number of steps."""

    def follow(schedule: str) -> None:
        trainer.schedule = named(schedule, trainer.config.schedule)

    return [
        Setting("lr", lambda: trainer.lr, partial(setattr, trainer, "lr"), low=0, open=True, key="training.lr"),
        Setting(
            "weight_decay",
            lambda: trainer.optimizers.weight_decay,
            partial(setattr, trainer.optimizers, "weight_decay"),
            low=0,
            key="training.optimizer.weight_decay",
        ),
        Setting(
            "max_grad_norm",
            lambda: trainer.max_grad_norm,
            partial(setattr, trainer, "max_grad_norm"),
            low=0,
            open=True,
            key="training.max_grad_norm",
        ),
        Setting(
            STEPS,
            lambda: trainer.total_steps,
            partial(setattr, trainer, "total_steps"),
            low=trainer.step_number + 1,
            whole=True,
            key="training.steps",
        ),
        Setting(
            "batch_size",
            lambda: trainer.feed.batch_size,
            partial(setattr, trainer.feed, "batch_size"),
            low=1,
            whole=True,
            key="training.batch_size",
        ),
        Setting(
            "schedule", lambda: trainer.schedule.type, follow, choices=tuple(SCHEDULES), key="training.schedule.type"
        ),
    ]
