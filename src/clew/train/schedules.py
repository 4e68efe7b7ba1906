"""Learning-rate schedules: pure functions of the step, so they have no state to save.

Each returns a factor of the peak rate for update number `step`, counted from 0. Warm-up rises linearly and reaches the
peak with its last update. Phases are fractions of the run, so that a longer run needs no other numbers.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from clew.config import config

_Fraction = Annotated[float, Field(ge=0, le=1)]


@config
class Wsd:
    """Warm up, stay, decay: the plateau can be extended later (Hu et al. 2024, arXiv:2404.06395)."""

    type: Literal["wsd"] = "wsd"
    warmup: _Fraction = 0.05
    """Fraction of the steps in which the rate rises."""
    decay: _Fraction = 0.2
    """Fraction of the steps, the last ones, in which the rate falls linearly."""
    floor: _Fraction = 0.0
    """Where the decay leads, as a fraction of the peak; the last update is still one decay step above it."""

    def __post_init__(self) -> None:
        if self.warmup + self.decay > 1:
            raise ValueError(f"warmup and decay: {self.warmup} and {self.decay} are more than the whole run")

    def factor(self, step: int, total: int) -> float:
        """Return the factor of the peak rate for update `step` of `total`."""
        decay_steps = _steps(self.decay, total)
        remaining = total - step
        if decay_steps and remaining <= decay_steps:
            falling = self.floor + (1 - self.floor) * max(0, remaining) / decay_steps
            return min(falling, _warmup(self.warmup, step, total))
        return _warmup(self.warmup, step, total)


@config
class Cosine:
    """Warm up, then half a cosine down (Loshchilov & Hutter 2017, arXiv:1608.03983)."""

    type: Literal["cosine"] = "cosine"
    warmup: _Fraction = 0.05
    """Fraction of the steps in which the rate rises."""
    floor: _Fraction = 0.1
    """Where the cosine ends, as a fraction of the peak."""

    def factor(self, step: int, total: int) -> float:
        """Return the factor of the peak rate for update `step` of `total`."""
        warmup_steps = _steps(self.warmup, total)
        if step < warmup_steps:
            return _warmup(self.warmup, step, total)
        progress = min(1.0, (step - warmup_steps) / max(1, total - warmup_steps))
        return self.floor + (1 - self.floor) * (1 + math.cos(math.pi * progress)) / 2


@config
class Constant:
    """Warm up, then stay."""

    type: Literal["constant"] = "constant"
    warmup: _Fraction = 0.0
    """Fraction of the steps in which the rate rises."""

    def factor(self, step: int, total: int) -> float:
        """Return the factor of the peak rate for update `step` of `total`."""
        return _warmup(self.warmup, step, total)


ScheduleConfig = Wsd | Cosine | Constant

SCHEDULES: dict[str, type[ScheduleConfig]] = {"wsd": Wsd, "cosine": Cosine, "constant": Constant}
"""What the schedules are called."""


def named(name: str, own: ScheduleConfig) -> ScheduleConfig:
    """Return the schedule of a name: the config's own one if it is called so, else one with its usual numbers.

    So it is in a config, too, where another type replaces all that belonged to the first.

    Args:
        name: One of :data:`SCHEDULES`.
        own: What the config says.
    """
    return own if own.type == name else SCHEDULES[name]()


def _steps(fraction: float, total: int) -> int:
    return round(fraction * total)


def _warmup(fraction: float, step: int, total: int) -> float:
    steps = _steps(fraction, total)
    return min(1.0, (step + 1) / steps) if steps else 1.0
