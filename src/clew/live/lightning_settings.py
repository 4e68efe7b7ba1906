"""The numbers of a Lightning trainer that can be changed between two steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from clew.live.lightning_data import TrainData
from clew.live.torch_numbers import Numbers
from clew.session.settings import STEPS, Setting

Keys = Callable[[str], str]


class TrainerNumbers:
    """What can be set: the numbers of the optimizers, clipping, the last step, the size of a batch.

    Args:
        trainer: A trainer whose optimizers are as its module has made them.
        keys: Name of a setting to the dotted key of the config that it stands over, empty for none.
    """

    def __init__(self, trainer: Any, keys: Keys) -> None:
        self._trainer = trainer
        self._keys = keys
        self._loop = trainer.fit_loop.epoch_loop
        self._is_counted = bool(trainer.lightning_module.automatic_optimization)
        schedules = [config.scheduler for config in trainer.lr_scheduler_configs]
        several = len(trainer.optimizers) > 1
        self._optimizers = [
            Numbers(
                optimizer,
                [one for one in schedules if one.optimizer is optimizer],
                f".optimizer{place}" if several else "",
            )
            for place, optimizer in enumerate(trainer.optimizers)
        ]

    def all(self, data: TrainData, finished: int, *, ended: bool) -> list[Setting]:
        """Return what can be set now.

        Args:
            data: Where batches come from.
            finished: The number of finished steps.
            ended: Whether no further step can follow.
        """
        found = [setting for one in self._optimizers for setting in one.settings(self._keys)]
        # Clipped by hand, or not at all, is what happens with manual optimization; and its steps are not counted.
        if self._is_counted:
            read = partial(getattr, self._trainer, "gradient_clip_val")
            write = partial(setattr, self._trainer, "gradient_clip_val")
            found.append(self._setting("gradient_clip_val", read, write, low=0, open=True))
            found += [] if ended else [self._steps(finished)]
        if (feed := data.feed) is not None:

            def resize(size: int) -> None:
                feed.batch_size = size
                data.changed()

            found.append(self._setting("batch_size", lambda: feed.batch_size, resize, low=1, whole=True))
        return found

    def total(self) -> float:
        """Return the number of the last step; infinite where there is none."""
        limit: int = self._loop.max_steps
        return min(limit if limit != -1 and self._is_counted else math.inf, self._steps_of_epochs())

    def state(self) -> list[Any]:
        """Return what :meth:`loaded` takes, beside the state of the optimizers."""
        return [one.state() for one in self._optimizers]

    def loaded(self, state: Sequence[Any]) -> None:
        """Let the config's numbers hold after a state was restored."""
        for one, known in zip(self._optimizers, state, strict=True):
            one.loaded(known)

    def _setting(self, name: str, read: Callable[[], Any], write: Callable[[Any], None], **bounds: Any) -> Setting:
        return Setting(name, read, write, key=self._keys(name), **bounds)

    def _steps(self, finished: int) -> Setting:
        total = self.total()
        write = partial(setattr, self._loop, "max_steps")
        bounds: Mapping[str, Any] = {"low": finished + 1, "high": self._steps_of_epochs(), "whole": True}
        return self._setting(STEPS, lambda: total if total < math.inf else None, write, **bounds)

    def _steps_of_epochs(self) -> float:
        fit = self._trainer.fit_loop
        if fit.max_epochs in (None, -1) or fit.max_batches == math.inf:
            return math.inf
        return int(fit.max_epochs) * math.ceil(float(fit.max_batches) / int(self._trainer.accumulate_grad_batches))
