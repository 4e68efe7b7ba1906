"""What of a Hugging Face ``Trainer`` can be changed while it trains."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from clew.errors import UserError
from clew.session.settings import STEPS, Setting, Value

if TYPE_CHECKING:
    from transformers import Trainer

    from clew.live.trainer_feed import TrainerFeed

SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}
"""The schedules that can be set, and what Transformers calls them."""


@dataclass(frozen=True)
class BatchSetting(Setting):
    """The size of a batch, which must make whole forward passes.

    Attributes:
        misfit: Returns why a size does not fit; empty when it does.
    """

    misfit: Callable[[int], str] = lambda size: ""

    def parse(self, given: Any) -> Value:
        """Return a size; see :meth:`clew.session.settings.Setting.parse`."""
        value = super().parse(given)
        if reason := self.misfit(int(value)):
            raise UserError(f"{self.name} cannot be {value:g}: {reason}")
        return value


class TrainerSettings:
    """Learning rate, schedule, weight decay, clipping, batch size and last step of a ``Trainer``, and what a job adds.

    The learning rate is the peak of the schedule, and the schedule stretches over the steps that are set, as in our own
    trainer: with fewer or more of them it still ends where the run does.

    Args:
        trainer: A ``Trainer`` that is about to train: it has its optimizer and its schedule.
        feed: Its batches.
        more: What else can be set.
        section: The part of the config where all these numbers stand, such as ``training``; empty where they do not.
    """

    def __init__(self, trainer: Trainer, feed: TrainerFeed, more: Sequence[Setting] = (), section: str = "") -> None:
        self._trainer = trainer
        self._feed = feed
        self._more = list(more)
        self._section = section
        names = {theirs: ours for ours, theirs in SCHEDULES.items()}
        kind = str(getattr(trainer.args.lr_scheduler_type, "value", trainer.args.lr_scheduler_type))
        self._configured: dict[str, Value | None] = {
            "lr": float(self._schedule.base_lrs[0]),
            "schedule": names.get(kind, kind),
            "weight_decay": trainer.optimizer.param_groups[0]["weight_decay"],
            "max_grad_norm": trainer.args.max_grad_norm or None,
            feed.unit: feed.feed.batch_size,
            STEPS: trainer.state.max_steps,
        }
        self._values: dict[str, Value | None] = dict(self._configured)

    @property
    def total(self) -> int:
        """The last step."""
        return int(self._trainer.state.max_steps)

    def forget(self) -> None:
        """Take what was configured for in force again: a state was loaded, and who did that says what was set in it."""
        size = self._feed.unit
        resized = self._values[size] != self._configured[size]
        self._values = dict(self._configured)
        for name in ("weight_decay", "max_grad_norm", STEPS, *([size] if resized else [])):
            self._put(name)

    def all(self) -> list[Setting]:
        """Return what can be set now."""
        can_schedule = getattr(self._schedule, "lr_lambdas", None) is not None
        finished = self._trainer.state.global_step
        return [
            *([self._setting("lr", low=0)] if can_schedule else []),
            *([self._setting("schedule", choices=tuple(SCHEDULES))] if can_schedule and self._is_made_here else []),
            self._setting("weight_decay", low=0),
            self._setting("max_grad_norm", low=0, open=True),
            *([self._batch()] if self._feed.can_resize else []),
            self._setting(STEPS, low=finished + 1, whole=True),
            *self._more,
        ]

    @property
    def _schedule(self) -> Any:
        schedule: Any = self._trainer.lr_scheduler
        return getattr(schedule, "scheduler", schedule)  # Accelerate wraps it

    @property
    def _is_made_here(self) -> bool:
        """Whether ``Trainer`` made the schedule from its arguments, and was not handed one."""
        return bool(self._trainer._created_lr_scheduler)

    def _setting(self, name: str, **bounds: Any) -> Setting:
        key = f"{self._section}.{name}" if self._section else ""
        return Setting(name, partial(self._values.get, name), partial(self._write, name), key=key, **bounds)

    def _batch(self) -> Setting:
        name = self._feed.unit
        key = f"{self._section}.{name}" if self._section else ""
        read, write = partial(self._values.get, name), partial(self._write, name)
        return BatchSetting(name, read, write, low=1, whole=True, key=key, misfit=self._feed.misfit)

    def _write(self, name: str, value: Value) -> None:
        self._values[name] = value
        self._put(name)

    def _put(self, name: str) -> None:
        """Put the value in force."""
        value: Any = self._values[name]
        if name == "weight_decay":
            self._trainer.optimizer.param_groups[0]["weight_decay"] = value  # the second group is what never decays
        elif name == "max_grad_norm":
            self._trainer.args.max_grad_norm = value or 0.0
        elif name == self._feed.unit:
            self._feed.resize(int(value))
        else:
            self._trainer.state.max_steps = int(self._values[STEPS] or 0)
            self._reschedule()

    def _reschedule(self) -> None:
        """Let the learning rate of the next step be that of the schedule, peak and last step that are set."""
        schedule = self._schedule
        if getattr(schedule, "lr_lambdas", None) is None:
            return
        if self._is_made_here:
            schedule.lr_lambdas = [self._factor()] * len(schedule.base_lrs)
        peak: Any = self._values["lr"]
        first = schedule.base_lrs[0]
        schedule.base_lrs = [peak if one == first or not first else peak * one / first for one in schedule.base_lrs]
        # The schedule has moved on after the last step already: the next one takes what stands in the groups.
        pairs = zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)
        schedule._last_lr = [base * factor(schedule.last_epoch) for base, factor in pairs]
        groups = self._trainer.optimizer.param_groups
        for group, base, rate in zip(groups, schedule.base_lrs, schedule._last_lr, strict=True):
            group["initial_lr"], group["lr"] = base, rate

    def _factor(self) -> Callable[[int], float]:
        """What Transformers multiplies the peak with in a step. It wants an optimizer for that, so it gets one."""
        import torch
        from transformers import get_scheduler

        args, total, name = self._trainer.args, self.total, str(self._values["schedule"])
        made: Any = get_scheduler(
            SCHEDULES.get(name, name),
            torch.optim.SGD([torch.zeros(1)], lr=1.0),
            num_warmup_steps=args.get_warmup_steps(total),
            num_training_steps=total,
            scheduler_specific_kwargs=args.lr_scheduler_kwargs if name == self._configured["schedule"] else None,
        )
        factor: Callable[[int], float] = made.lr_lambdas[0]
        return factor
