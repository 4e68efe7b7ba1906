"""A PyTorch program as it trains: its complete state out and in, its numbers, and its next samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from torch.nn import Parameter

from clew.checkpoints.digest import state_digest, tensors_digest
from clew.checkpoints.rng import rng_state, set_rng_state
from clew.checkpoints.snapshot import Snapshots
from clew.checkpoints.state import load_state, save_state
from clew.data.feed import Feed
from clew.errors import DataError, NotFinite, UserError
from clew.health.probe import HealthProbe
from clew.inspection.samples import Selection
from clew.live.finite import are_finite
from clew.live.torch_data import Samples
from clew.live.torch_numbers import Numbers
from clew.live.torch_parts import Parts, storable
from clew.live.window import Window
from clew.session.settings import STEPS, Setting

STATE = "program"
"""Stem of the files with a program's state, in which ``models`` leads to the weights."""

_STEADIER = "lower the learning rate, or clip gradients"


class TorchTraining:
    """What trains in a PyTorch program: saved, restored, set, put back, compared, and given other data.

    Args:
        parts: Models, optimizers, and what belongs to them.
        samples: What it is trained on; None where the program has data of its own.
        batch_size: Samples in one batch; None takes that of the samples' loader.
        steps: How far the training goes; None where nobody knows.
        seed: Of the sample order.
        max_grad_norm: Where gradients are clipped, if ``clips``; None is nowhere.
        clips: Whether the program clips them by :attr:`max_grad_norm`.
        keys: Name of a setting to the dotted key of the config that it stands over, empty for none.

    Attributes:
        parts: As given.
        samples: As given.
        seed: As given.
        feed: Which samples come next; None where the program has data of its own.
        window: The metrics since the last log; part of the state.
        probe: What is remembered of recent steps.
        step_number: Finished steps.
        total_steps: How far the training goes.
        max_grad_norm: Where gradients are clipped.

    Raises:
        UserError: If there is no batch size.
    """

    def __init__(
        self,
        parts: Parts,
        *,
        samples: Samples | None = None,
        batch_size: int | None = None,
        steps: int | None = None,
        seed: int = 0,
        max_grad_norm: float | None = None,
        clips: bool = False,
        keys: Callable[[str], str] = lambda name: "",
    ) -> None:
        self.parts = parts
        self.samples = samples
        self.seed = seed
        self.feed = _feed(samples, batch_size, seed)
        self.window = Window()
        self.probe = HealthProbe()
        self.step_number = 0
        self.total_steps = steps
        self.max_grad_norm = max_grad_norm
        self._clips = clips
        self._keys = keys
        self._snapshots = Snapshots()
        self._numbers = _numbers(parts)
        for optimizer in parts.optimizers.values():
            optimizer.register_step_pre_hook(lambda *_: self._snapshots.settle())

    # What a program says.

    @property
    def is_over(self) -> bool:
        """Whether the last step is done."""
        return self.total_steps is not None and self.step_number >= self.total_steps

    def batch(self) -> Any:
        """Return the samples that come next, and move on.

        Raises:
            UserError: If the program has data of its own.
        """
        if self.feed is None or self.samples is None:
            raise UserError("the session knows no data", where="data", hint="name it: data=...")
        with self.probe.data():
            return self.samples.fetch(self.feed.take())

    def finish_step(self, metrics: Mapping[str, Any]) -> int:
        """Take note that an optimizer step is done; waits for no device.

        Args:
            metrics: Names to numbers, or to tensors of one element; ``loss`` is what a training's health looks at.

        Returns:
            The number of finished steps.
        """
        self.step_number += 1
        self.probe.clock.step_done(None, self.window.add(metrics).get("loss"))
        return self.step_number

    def measure(self) -> dict[str, float]:
        """Return the means of the metrics since the last log.

        Raises:
            NotFinite: If one of the losses was not finite.
        """
        means = self.window.means()
        if not math.isfinite(means.get("loss", 0.0)):
            raise NotFinite(
                f"the loss is no longer finite at step {self.step_number}",
                hint=_STEADIER,
            )
        return means

    def configure(self, values: Mapping[str, Any]) -> None:
        """Let settings have values as if the program had been written so; to be called before anything is restored.

        Args:
            values: Names of settings to values; other names are left alone.

        Raises:
            UserError: If a value does not fit.
        """
        for setting in self.settings():
            if setting.name in values and values[setting.name] not in (None, setting.read()):
                setting.write(setting.parse(values[setting.name]))
        self._numbers = _numbers(self.parts)

    # What a session asks.

    def settings(self) -> Sequence[Setting]:
        """Return what can be set between two steps."""
        found = [one for numbers in self._numbers.values() for one in numbers.settings(self._keys)]
        if self._clips:
            read, write = lambda: self.max_grad_norm, partial(setattr, self, "max_grad_norm")
            found.append(Setting("max_grad_norm", read, write, low=0, open=True, key=self._keys("max_grad_norm")))
        if (feed := self.feed) is not None:
            write = partial(setattr, feed, "batch_size")
            key = self._keys("batch_size")
            found.append(Setting("batch_size", lambda: feed.batch_size, write, low=1, whole=True, key=key))
        if self.total_steps is not None:
            low, write = self.step_number + 1, partial(setattr, self, "total_steps")
            found.append(Setting(STEPS, lambda: self.total_steps, write, low=low, whole=True, key=self._keys(STEPS)))
        return found

    @contextmanager
    def idle(self) -> Iterator[None]:
        """Surround a time in which nothing is trained: it is left out of the steps' times."""
        with self.probe.pause():
            yield

    def save(self, directory: Path) -> None:
        """Write the complete state.

        Raises:
            NotFinite: If the loss was not finite, or the weights are not: such a state is not worth coming back to.
        """
        with self.idle():
            save_state(directory, STATE, self._state())

    def snapshot(self) -> Callable[[Path], None]:
        """Keep the complete state of this moment, and return what writes it, in any thread; copies are made meanwhile.

        Raises:
            NotFinite: As :meth:`save`.
        """
        with self.idle():
            state = self._state()
            # Running statistics change in the next forward pass already, before anybody waits for the copies.
            state["models"] |= {
                name: value if isinstance(value, Parameter) else value.clone()
                for name, value in self.parts.tensors().items()
            }
            kept = self._snapshots.take(state)
        return lambda directory: save_state(directory, STATE, kept())

    def load(self, directory: Path) -> None:
        """Go on from what :meth:`save` wrote; from here everything happens as it would have there.

        Raises:
            DataError: If that state is of another program, or its data had another size; nothing is changed then.
        """
        state = _read(directory)
        self.parts.check(state)
        if state["samples"] != self._sizes():
            raise DataError(
                "the training samples are not those that this checkpoint was trained on",
                where=str(directory),
                hint="bring back the data as it was, or start a new run",
            )
        self._snapshots.settle()
        self.parts.take(state)
        for name, numbers in self._numbers.items():
            numbers.loaded(state["numbers"][name])
        if self.feed is not None:
            self.feed.load(state["feed"])
        self.step_number = state["step"]
        self.window.load(state["window"])
        set_rng_state(state["rng"])

    def reset(self, checkpoint: Path | None, *, optimizer: bool) -> None:
        """Take the weights of a checkpoint, and what its optimizers knew with them; all of it, or nothing.

        Steps, data position, schedules and rates go on. What was measured since the last log is dropped.

        Raises:
            DataError: If it is a checkpoint of another program.
        """
        if checkpoint is not None:
            state = _read(checkpoint)
            self.parts.check(state, optimizers=not optimizer)
            self._snapshots.settle()
            self.parts.take_weights(state)
            if not optimizer:
                self.parts.take_moments(state)
        if optimizer:
            self._snapshots.settle()
            self.parts.forget_moments()
        self.window.clear()

    def select(self, selection: Selection | None) -> None:
        """Train on these samples from the next batch on; None is all of them again.

        Raises:
            UserError: If the program has data of its own, or there are no such samples.
        """
        if self.feed is None:
            raise UserError(
                "the session knows no data to choose from", hint="name it: data=..., and take live.batches()"
            )
        try:
            self.feed.select(selection)
        except ValueError as error:
            raise DataError(str(error)) from None

    def settle(self) -> None:
        """Wait until snapshots need the weights no longer; to be called before they are changed in another way."""
        self._snapshots.settle()

    def digests(self) -> Mapping[str, str]:
        """Return hashes of the ``weights`` with their buffers, and of the ``optimizer``'s state."""
        optimizers = {name: one.state_dict() for name, one in self.parts.optimizers.items()}
        return {"weights": tensors_digest(sorted(self.parts.tensors().items())), "optimizer": state_digest(optimizers)}

    def _state(self) -> dict[str, Any]:
        self.measure()
        if not are_finite(one for one in self.parts.whole.parameters() if one.requires_grad):
            raise NotFinite(f"the weights are no longer finite at step {self.step_number}", hint=_STEADIER)
        return {
            **self.parts.state(),
            "numbers": {name: numbers.state() for name, numbers in self._numbers.items()},
            "samples": self._sizes(),
            "feed": None if self.feed is None else storable(self.feed.state()),
            "step": self.step_number,
            "window": self.window.state(),
            "rng": rng_state(),
        }

    def _sizes(self) -> int | None:
        return None if self.feed is None else self.feed.num_samples


def _feed(samples: Samples | None, batch_size: int | None, seed: int) -> Feed | None:
    if samples is None:
        return None
    size = batch_size or samples.batch_size
    if size is None:
        raise UserError("nobody knows how large a batch is", where="batch_size", hint="say it: batch_size=...")
    return Feed(samples.size, seed, size, shuffled=samples.shuffled)


def _numbers(parts: Parts) -> dict[str, Numbers]:
    """What can be set of each optimizer; with the schedules that move its own rates."""
    several = len(parts.optimizers) > 1
    found = {}
    for name, optimizer in parts.optimizers.items():
        moving = [one for one in parts.schedulers.values() if vars(one).get("optimizer") in (optimizer, None)]
        found[name] = Numbers(optimizer, moving, f".{name}" if several else "")
    return found


def _read(directory: Path) -> dict[str, Any]:
    try:
        state: dict[str, Any] = load_state(directory, STATE)
    except FileNotFoundError:
        raise DataError("this is no checkpoint of such a program", where=str(directory)) from None
    return state
