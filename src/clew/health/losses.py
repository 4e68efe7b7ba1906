"""What there is to say about losses: those that a trainer remembers, and those that a journal holds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from clew.health.spikes import SpikeFinder

_MOST_SPIKES = 8


def loss_section(losses: Iterable[float], *, step: int | None = None) -> dict[str, Any] | None:
    """Say what is to be said of the recent losses.

    Args:
        losses: The newest last, one a step.
        step: Of the newest; None where that is not known, and then spikes have no step.

    Returns:
        What :func:`told` returns; None without losses.
    """
    values: Sequence[float] = list(losses)
    if not values:
        return None
    finder = SpikeFinder()
    for value in values:
        finder.add(value)
    first = None if step is None else step - len(values) + 1
    return told(finder, lambda index: None if first is None else first + index, newest=values[-1])


def told(finder: SpikeFinder, step_of: Callable[[int], int | None], *, newest: float) -> dict[str, Any]:
    """Return what a finder found, as JSON.

    Args:
        finder: What has looked at the losses.
        step_of: Gives the step of a loss's number; None where that is not known.
        newest: The last of them.

    Returns:
        ``count``, ``newest``, ``not_finite`` (how many), ``lost`` (``{step}`` of the first of these; None without one),
        ``num_spikes``, ``spikes`` (the last eight: ``step``, ``value``, ``usual``) and ``recovered``.
    """
    return {
        "count": finder.count,
        "newest": tidy(newest),
        "not_finite": finder.not_finite,
        "lost": None if finder.lost is None else {"step": step_of(finder.lost)},
        "num_spikes": len(finder.spikes),
        "spikes": [
            {"step": step_of(spike.index), "value": tidy(spike.value), "usual": tidy(spike.usual)}
            for spike in finder.spikes[-_MOST_SPIKES:]
        ],
        "recovered": finder.has_recovered,
    }


def tidy(value: float | None) -> float | str | None:
    """Return a figure with six digits, as JSON: what is not finite is spelled out, as everywhere in a journal."""
    if value is None:
        return None
    return float(f"{value:.6g}") if math.isfinite(value) else str(value)
