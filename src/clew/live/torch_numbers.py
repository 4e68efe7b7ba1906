"""The numbers of an optimizer that can be changed between two steps, whatever schedule moves them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from clew.session.settings import Setting

_RATES = ("lr", "initial_lr", "max_lr", "min_lr")
"""Entries of a group that a schedule keeps its rates in."""
_LISTS = ("base_lrs", "max_lrs", "_last_lr")
"""Lists of a schedule that hold a rate for each group."""


class Rate:
    """The learning rate that the schedule of an optimizer moves from: its base rate.

    Where groups have different ones, it is that of the first with any, and the others keep their ratio to it. A change
    multiplies everything that a schedule keeps, so that it goes on in the same shape. Going back to a rate from which
    no step was made since gives the very same numbers.

    Args:
        optimizer: The optimizer.
        schedulers: Those that move its rates.
    """

    def __init__(self, optimizer: Optimizer, schedulers: Sequence[Any]) -> None:
        self._optimizer = optimizer
        self._schedulers = schedulers
        bases = [float(group.get("initial_lr", group["lr"])) for group in optimizer.param_groups]
        self.configured = next((base for base in bases if base), 0.0)
        self.value = self.configured
        self._anchor = (self.value, self._numbers())

    def put(self, value: float) -> None:
        """Move to another base rate."""
        if (now := self._numbers()) != self._numbers_of(*self._anchor, self.value):
            self._anchor = (self.value, now)  # the schedule has moved since
        for (_, write), number in zip(self._slots(), self._numbers_of(*self._anchor, value), strict=True):
            write(number)
        self.value = value

    def loaded(self, value: float) -> None:
        """Take note that the optimizer and its schedules were restored from a state with this base rate."""
        self.value, self._anchor = value, (value, self._numbers())
        self.put(self.configured)

    def _numbers(self) -> list[float]:
        return [read() for read, _ in self._slots()]

    def _numbers_of(self, base: float, numbers: list[float], value: float) -> list[float]:
        """What the numbers of a base rate are at another one."""
        return numbers if value == base or not base else [number * (value / base) for number in numbers]

    def _slots(self) -> Iterator[tuple[Callable[[], float], Callable[[float], None]]]:
        """Every number that goes with the rate: what reads it, and what writes it."""
        for group in self._optimizer.param_groups:
            for name in _RATES:
                if name in group:
                    yield partial(_read, group, name), partial(_write, group, name)
        for scheduler in self._leaves(self._schedulers):
            for name in _LISTS:
                numbers = vars(scheduler).get(name)
                if isinstance(numbers, list):
                    for place in range(len(numbers)):
                        yield partial(_read, numbers, place), partial(_write, numbers, place)

    def _leaves(self, schedulers: Sequence[Any]) -> Iterator[Any]:
        """The schedules, and those that they are made of."""
        for scheduler in schedulers:
            yield scheduler
            yield from self._leaves(vars(scheduler).get("_schedulers", ()))


class Numbers:
    """What can be set of one optimizer.

    Args:
        optimizer: The optimizer, as its program has made it.
        schedulers: Those that move its rates.
        suffix: Behind the names, where there are several optimizers.
    """

    def __init__(self, optimizer: Optimizer, schedulers: Sequence[Any], suffix: str = "") -> None:
        self._rate = Rate(optimizer, schedulers)
        self._optimizer = optimizer
        self._suffix = suffix
        groups = range(len(optimizer.param_groups))
        decaying = [place for place in groups if optimizer.param_groups[place].get("weight_decay")]
        # Groups that never decay, such as that of the biases, never do.
        places = {"weight_decay": decaying or list(groups), "momentum": list(groups)}
        self._places = {name: having for name, having in places.items() if name in optimizer.defaults}
        self._configured = {name: [_read(group, name) for group in self._groups(name)] for name in self._places}

    def settings(self, keys: Callable[[str], str]) -> list[Setting]:
        """Return what can be set.

        Args:
            keys: Name of a setting to the dotted key of the config that it stands over.
        """
        lr = f"lr{self._suffix}"
        found = [Setting(lr, lambda: self._rate.value, self._rate.put, low=0, open=True, key=keys(lr))]
        for name in self._places:
            full, high = f"{name}{self._suffix}", 1.0 if name == "momentum" else math.inf
            read, write = partial(self._get, name), partial(self._put, name)
            found.append(Setting(full, read, write, low=0, high=high, key=keys(full)))
        return found

    def state(self) -> dict[str, Any]:
        """Return what :meth:`loaded` takes, beside the optimizer's own state."""
        return {"rate": self._rate.value, "configured": self._configured}

    def loaded(self, state: Mapping[str, Any]) -> None:
        """Let the program's own numbers hold where they are others than those that a restored optimizer was made with.

        Else a group's numbers stay as they were restored, since a schedule may move more of them than the rate.
        """
        self._rate.loaded(state["rate"])
        for name, values in self._configured.items():
            if values != state["configured"].get(name):
                for group, value in zip(self._groups(name), values, strict=True):
                    _write(group, name, value)

    def _get(self, name: str) -> float:
        return _read(self._groups(name)[0], name)

    def _put(self, name: str, value: float) -> None:
        for group in self._groups(name):
            _write(group, name, value)

    def _groups(self, name: str) -> list[dict[str, Any]]:
        return [self._optimizer.param_groups[place] for place in self._places[name]]


def _read(holder: Any, key: Any) -> float:
    return float(holder[key])


def _write(holder: Any, key: Any, value: float) -> None:
    if isinstance(holder[key], Tensor):
        holder[key].fill_(value)  # a captured optimizer reads this very tensor
    else:
        holder[key] = value
