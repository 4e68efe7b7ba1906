"""Which checkpoints are kept; a function of their steps and ratings, without files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass


@dataclass(frozen=True)
class Retention:
    """What is kept.

    Attributes:
        last: How many of the newest.
        every: Multiples of this stay for good; None has no such schedule.
        steps: What stays besides: the tagged, and one that is known to be good.
        passing: What is not counted among the newest: it was saved to be there until the next.
    """

    last: int
    every: int | None = None
    steps: frozenset[int] = frozenset()
    passing: Set[int] = frozenset()


def kept(steps: Sequence[int], ratings: Mapping[int, float], retention: Retention) -> Set[int]:
    """Return the steps that are kept.

    Args:
        steps: Of the checkpoints that there are, the newest first.
        ratings: How good some of them are, lower is better; the best is kept, the newest of equals.
        retention: What else is.
    """
    best = {best_of(ratings)} if ratings else set()
    permanent = {step for step in steps if retention.every is not None and step % retention.every == 0}
    newest = [step for step in steps if step not in retention.passing][: retention.last]
    return {*newest, *best, *permanent, *(retention.steps & set(steps))}


def best_of(ratings: Mapping[int, float]) -> int:
    """Return the step with the lowest rating, the newest of equals; there must be one."""
    return min(ratings, key=lambda step: (ratings[step], -step))
