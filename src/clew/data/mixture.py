"""Samples from several sources at once, each with its share: an endless stream that is a function of the position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from clew.data.order import Ids, permute


class Source(Protocol):
    """Some of the samples of a data set, which are numbered for themselves here."""

    @property
    def size(self) -> int:
        """How many there are, at least 1."""
        ...

    @property
    def share(self) -> float:
        """Of all that is drawn; above 0, and only the ratios of several count."""
        ...

    def ids(self, places: Ids) -> Ids:
        """Return the data set's own numbers of the samples at these places, each in [0, size)."""
        ...


@dataclass(frozen=True)
class Listed:
    """Samples that are told by their numbers."""

    numbers: Ids
    share: float = 1.0

    @property
    def size(self) -> int:
        """How many there are."""
        return len(self.numbers)

    def ids(self, places: Ids) -> Ids:
        """Return the numbers at these places."""
        found: Ids = self.numbers[places]
        return found


@dataclass(frozen=True)
class Range:
    """Samples that follow each other: ``size`` of them from ``start`` on."""

    start: int
    size: int
    share: float = 1.0

    def ids(self, places: Ids) -> Ids:
        """Return the numbers at these places."""
        return places + self.start


class Mixture:
    """The endless stream of samples from several sources.

    Which source comes next repeats after ``slots`` places, so that in each such round a source comes as often as its
    share says, to the nearest whole number but at least once.

    Args:
        sources: What is drawn from; one alone is drawn from in all places.
        seed: Selects the order.
        slots: Places of the pattern.
        shuffled: Whether each epoch of a source has another order; else its samples come as they are numbered there.
    """

    def __init__(self, sources: Sequence[Source], seed: int, *, slots: int, shuffled: bool = True) -> None:
        self._sources = sources
        self._seed = seed
        self._shuffled = shuffled
        pattern = _pattern([source.share for source in sources], slots, seed)
        # For each place, how often its own source stands before it; and how often each source stands there in all.
        self._pattern = pattern
        self._before = np.zeros_like(pattern)
        self._counts = np.bincount(pattern, minlength=len(sources))
        for number in range(len(sources)):
            here = pattern == number
            self._before[here] = np.arange(self._counts[number])

    @property
    def size(self) -> int:
        """Samples of all sources."""
        return sum(source.size for source in self._sources)

    def ids(self, start: int, count: int) -> Ids:
        """Return the ids [count] int64 at positions from ``start`` on."""
        positions = np.arange(start, start + count, dtype=np.int64)
        if len(self._sources) == 1:
            return self._drawn(0, positions)
        rounds, places = np.divmod(positions, len(self._pattern))
        numbers = self._pattern[places]
        drawn = rounds * self._counts[numbers] + self._before[places]
        ids = np.empty_like(positions)
        for number in np.unique(numbers):
            here = numbers == number
            ids[here] = self._drawn(int(number), drawn[here])
        return ids

    def counts(self, end: int) -> Ids:
        """Return how many samples of each source [S] int64 are among the first ``end``, without drawing them."""
        rounds, places = divmod(end, len(self._pattern))
        return rounds * self._counts + np.bincount(self._pattern[:places], minlength=len(self._sources))

    def _drawn(self, number: int, positions: Ids) -> Ids:
        """The ids that a source gives at its own positions."""
        source = self._sources[number]
        return source.ids(places_at(positions, source.size, seed=self._seed + number, shuffled=self._shuffled))


def places_at(positions: Ids, size: int, *, seed: int, shuffled: bool = True) -> Ids:
    """Return which of ``size`` samples comes at each position of an endless stream, epoch after epoch.

    Args:
        positions: [N] int64, not negative, and not falling.
        size: Number of samples, at least 1.
        seed: Selects the orders.
        shuffled: Whether each epoch has an order of its own; else the samples come as they are numbered.
    """
    epochs, places = np.divmod(positions, size)
    if not shuffled or not len(positions):
        return places
    first, last = int(epochs[0]), int(epochs[-1])
    # Positions do not fall, so an epoch's lie together.
    cuts = np.searchsorted(epochs, np.arange(first, last + 2))
    for epoch in range(first, last + 1):
        here = slice(cuts[epoch - first], cuts[epoch - first + 1])
        places[here] = permute(places[here], size, seed=seed, epoch=epoch)
    return places


def _pattern(shares: Sequence[float], places: int, seed: int) -> Ids:
    """The source that each place draws from, mixed."""
    exact = np.array(shares, dtype=np.float64) / np.sum(shares) * places
    slots = np.maximum(1, np.floor(exact).astype(np.int64))
    # What is missing goes to those that lost most by rounding.
    for number in np.argsort(slots - exact, kind="stable"):
        slots[number] += int(slots.sum() < places)
    ordered = np.repeat(np.arange(len(slots), dtype=np.int64), slots)
    return ordered[permute(np.arange(len(ordered), dtype=np.int64), len(ordered), seed=seed, epoch=0)]
