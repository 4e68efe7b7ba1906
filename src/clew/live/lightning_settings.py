"""The numbers of a Lightning trainer that can be changed between two steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from torch import Tensor

from clew.live.lightning_data import TrainData
from clew.session.settings import STEPS, Setting

_OF_THE_SCHEDULE = ("initial_lr", "max_lr", "min_lr")
"""What schedules keep beside the learning rate of a group."""


class TrainerNumbers:
    """What can be set: learning rate, weight decay, momentum, clipping, the last step, the size of a batch.

    The learning rate is the one that a schedule starts from, that of the first group where there are several; the
    others keep their ratio to it, and schedules go on from where they are.

    Args:
        trainer: A trainer that has its optimizers.
        data: Where its batches come from.
        keys: Names of settings to the dotted keys of the config that they stand over.
        finished: Returns the number of finished steps.
        never: What :func:`never_decaying` returned when the optimizers were new.
    """

    def __init__(
        self, trainer: Any, data: TrainData, keys: Mapping[str, str], finished: Callable[[], int], never: frozenset[int]
    ) -> None:
        self._trainer = trainer
        self._data = data
        self._keys = keys
        self._finished = finished
        self._never = never

    def all(self, *, more_steps: bool) -> list[Setting]:
        """Return what can be set now.

        Args:
            more_steps: Whether another step can follow.
        """
        first = next(self._groups(), {})
        found = [self._setting("lr", lambda: _base(first), self._put_lr, low=0, open=True)] if "lr" in first else []
        for name, bounds in (("weight_decay", {}), ("momentum", {"high": 1})):
            if having := self._having(name):
                found.append(
                    self._setting(name, partial(_get, having[0], name), partial(self._put_all, name), low=0, **bounds)
                )
        if self._trainer.lightning_module.automatic_optimization:
            clip = partial(getattr, self._trainer, "gradient_clip_val")
            put = partial(setattr, self._trainer, "gradient_clip_val")
            found.append(self._setting("gradient_clip_val", clip, put, low=0, open=True))
            if more_steps:
                found.append(self._steps())
        if self._data.feed is not None:
            found.append(self._setting("batch_size", self._batch_size, self._put_batch_size, low=1, whole=True))
        return found

    def total(self) -> float:
        """Return the number of the last step; infinite where there is none."""
        limit: int = self._trainer.max_steps
        counted = limit != -1 and self._trainer.lightning_module.automatic_optimization
        return min(limit if counted else math.inf, self._steps_of_epochs())

    def _setting(self, name: str, read: Callable[[], Any], put: Callable[[Any], None], **bounds: Any) -> Setting:
        return Setting(name, read, put, key=self._keys.get(name, ""), **bounds)

    def _steps(self) -> Setting:
        loop = self._trainer.fit_loop.epoch_loop

        def read() -> float | None:
            total = self.total()
            return total if total < math.inf else None

        put = partial(setattr, loop, "max_steps")
        low, high = self._finished() + 1, self._steps_of_epochs()
        return self._setting(STEPS, read, put, low=low, high=high, whole=True)

    def _steps_of_epochs(self) -> float:
        epochs, batches = self._trainer.max_epochs, self._trainer.num_training_batches
        if epochs in (None, -1) or batches == math.inf:
            return math.inf
        return int(epochs) * math.ceil(float(batches) / int(self._trainer.accumulate_grad_batches))

    def _groups(self) -> Iterator[dict[str, Any]]:
        return groups_of(self._trainer)

    def _having(self, name: str) -> list[dict[str, Any]]:
        """The groups of which a number is to be set."""
        never = self._never if name == "weight_decay" else frozenset()
        return [group for place, group in enumerate(self._groups()) if name in group and place not in never]

    def _put_all(self, name: str, value: float) -> None:
        for group in self._having(name):
            _put(group, name, value)

    def _put_lr(self, value: float) -> None:
        ratio = value / _base(next(self._groups()))
        for group in self._groups():
            base = _base(group) * ratio if group is not next(self._groups()) else value
            rate = base * (float(group["lr"]) / _base(group))
            for name in _OF_THE_SCHEDULE:
                if name in group:
                    _put(group, name, base if name == "initial_lr" else float(group[name]) * ratio)
            _put(group, "lr", rate)
        for schedule in self._schedules():
            groups = schedule.optimizer.param_groups
            if "base_lrs" in vars(schedule):
                schedule.base_lrs = [_base(group) for group in groups]
            schedule._last_lr = [float(group["lr"]) for group in groups]

    def _schedules(self) -> Iterator[Any]:
        waiting = [config.scheduler for config in self._trainer.lr_scheduler_configs]
        while waiting:
            schedule = waiting.pop()
            waiting += getattr(schedule, "_schedulers", [])
            yield schedule

    def _batch_size(self) -> int:
        assert self._data.feed is not None
        return self._data.feed.batch_size

    def _put_batch_size(self, value: int) -> None:
        assert self._data.feed is not None
        self._data.feed.batch_size = value
        self._data.changed()


def groups_of(trainer: Any) -> Iterator[dict[str, Any]]:
    """Yield the parameter groups of all optimizers."""
    for optimizer in trainer.optimizers:
        yield from optimizer.param_groups


def never_decaying(trainer: Any) -> frozenset[int]:
    """Return the places of the groups that do not decay, such as that of the biases, where others do.

    The places, because an optimizer that loads a state has new groups; and of new optimizers, because what decays can
    be set to nothing.
    """
    groups = list(groups_of(trainer))
    never = frozenset(place for place, group in enumerate(groups) if group.get("weight_decay") == 0)
    return never if len(never) < len(groups) else frozenset()


def _base(group: Mapping[str, Any]) -> float:
    """The learning rate that a group's schedule starts from."""
    return float(group.get("initial_lr", group["lr"]))


def _get(group: Mapping[str, Any], name: str) -> float:
    return float(group[name])


def _put(group: dict[str, Any], name: str, value: float) -> None:
    if isinstance(group[name], Tensor):
        group[name].fill_(value)  # a captured optimizer reads this very tensor
    else:
        group[name] = value
