"""The numbers of a Hugging Face ``Trainer`` that can be changed while it trains."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from clew.session.settings import STEPS, Setting

if TYPE_CHECKING:
    from transformers import Trainer


class TrainerSettings:
    """Learning rate, weight decay, clipping and the last step of a ``Trainer``, and what a job adds to them.

    A ``Trainer`` has its optimizer only once it trains: what is set before is kept and put in force then. The learning
    rate is the peak that the schedule starts from; the schedule itself stays that of the config, and so the last step
    can be an earlier one but no later one.

    Args:
        trainer: A ``Trainer``.
        more: What else can be set.
    """

    def __init__(self, trainer: Trainer, more: Sequence[Setting] = ()) -> None:
        self._trainer = trainer
        self._more = list(more)
        self._values: dict[str, float] = {}
        self._begun = False
        self._put: dict[str, Callable[[Any], None]] = {
            "lr": self._put_lr,
            "weight_decay": self._put_weight_decay,
            "max_grad_norm": self._put_max_grad_norm,
            STEPS: self._put_steps,
        }

    def begin(self) -> None:
        """Put in force what was set before. To be called when the training begins."""
        self._begun = True
        for name, value in self._values.items():
            self._put[name](value)

    @property
    def last_step(self) -> int:
        """How far the training goes."""
        return int(self._values.get(STEPS, self._trainer.args.max_steps))

    def all(self, finished: int) -> list[Setting]:
        """Return what can be set after so many steps."""
        args = self._trainer.args
        return [
            self._setting("lr", args.learning_rate, low=0),
            self._setting("weight_decay", args.weight_decay, low=0),
            self._setting("max_grad_norm", args.max_grad_norm, low=0, open=True),
            self._setting(STEPS, args.max_steps, low=finished + 1, high=args.max_steps, whole=True),
            *self._more,
        ]

    def _setting(self, name: str, configured: float, **bounds: Any) -> Setting:
        return Setting(name, lambda: self._values.get(name, configured), partial(self._write, name), **bounds)

    def _write(self, name: str, value: float) -> None:
        self._values[name] = value
        if self._begun:
            self._put[name](value)

    def _put_lr(self, value: float) -> None:
        schedule: Any = self._trainer.lr_scheduler
        schedule = getattr(schedule, "scheduler", schedule)  # Accelerate wraps it
        schedule.base_lrs = [value for _ in schedule.base_lrs]
        # The schedule has moved on after the last step already: the next one takes what stands in the groups.
        rates = [value * factor(schedule.last_epoch) for factor in schedule.lr_lambdas]
        schedule._last_lr = rates
        for group, rate in zip(self._trainer.optimizer.param_groups, rates, strict=True):
            group["initial_lr"], group["lr"] = value, rate

    def _put_weight_decay(self, value: float) -> None:
        self._trainer.optimizer.param_groups[0]["weight_decay"] = value  # the second group is what never decays

    def _put_max_grad_norm(self, value: float) -> None:
        self._trainer.args.max_grad_norm = value

    def _put_steps(self, value: float) -> None:
        self._trainer.state.max_steps = int(value)
