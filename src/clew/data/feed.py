"""Which samples come next: a position, a batch size, and what of the data is chosen.

Everything is a pure function of the position, so a batch may change its size between any two steps, and a checkpoint
holds a few numbers; the ids of a selection are all that it adds.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from clew.data.order import Ids, permute
from clew.data.stream import SampleStream
from clew.inspection.samples import Part, Selection

_SLOTS = 1024
"""Places of a mixture's pattern: each part has its share of them, to the nearest whole number but at least one."""


class Feed:
    """Hands out sample ids, batch after batch, without an end.

    Args:
        num_samples: Size of the data set, at least 1.
        seed: Selects the order.
        batch_size: Samples in one batch; may be changed between two batches.
        shuffled: Whether each epoch has another order; else samples come as they are numbered.

    Attributes:
        samples_seen: How many have been handed out since the beginning.
        selection: What is trained on; None is everything.
    """

    def __init__(self, num_samples: int, seed: int, batch_size: int, *, shuffled: bool = True) -> None:
        self.num_samples = num_samples
        self.seed = seed
        self.batch_size = batch_size
        self.samples_seen = 0
        self.selection: Selection | None = None
        self._mixture: _Mixture | None = None
        self._shuffled = shuffled
        self._since = 0
        self._all = SampleStream(num_samples, seed)

    @property
    def epoch(self) -> float:
        """How often what is trained on has been seen, since it was chosen."""
        size = self.selection.size if self.selection else self.num_samples
        return (self.samples_seen - self._since) / size

    def take(self, count: int | None = None) -> Ids:
        """Return the ids [count] int64 that come next, a batch without a count, and move on."""
        count = self.batch_size if count is None else count
        ids = self.peek(count)
        self.samples_seen += count
        return ids

    def peek(self, count: int) -> Ids:
        """Return the ids [count] int64 that come next."""
        if self._mixture is not None:
            return self._mixture.ids(self.samples_seen - self._since, count)
        if self._shuffled:
            return self._all.batch(self.samples_seen, count)
        return np.arange(self.samples_seen, self.samples_seen + count, dtype=np.int64) % self.num_samples

    def select(self, selection: Selection | None) -> None:
        """Hand out only these from now on, beginning a new epoch; None is everything, where it would be by now.

        Raises:
            ValueError: If there is no part, a part is empty, or an id or a share is none; nothing is changed then.
        """
        if selection is not None:
            self._check(selection)
        self._choose(selection)
        self._since = self.samples_seen if selection is not None else 0

    def state(self) -> dict[str, Any]:
        """Return what :meth:`load` takes: numbers, and the ids of a selection as int64 arrays."""
        chosen = self.selection
        return {
            "samples_seen": self.samples_seen,
            "since": self._since,
            "batch_size": self.batch_size,
            "selection": None
            if chosen is None
            else {
                "ids": [part.ids for part in chosen.parts],
                "shares": [part.share for part in chosen.parts],
                "shuffled": chosen.shuffled,
                "recipe": dict(chosen.recipe),
            },
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state; the batch size stays what it is, since a config or a command says it."""
        self.samples_seen, self._since, chosen = state["samples_seen"], state["since"], state["selection"]
        if chosen is None:
            self._choose(None)
            return
        ids = [np.asarray(part, dtype=np.int64) for part in chosen["ids"]]
        parts = tuple(Part(part, share) for part, share in zip(ids, chosen["shares"], strict=True))
        self._choose(Selection(parts, chosen["recipe"], chosen["shuffled"]))

    def _check(self, selection: Selection) -> None:
        if not selection.parts:
            raise ValueError("a selection must have a part")
        for part in selection.parts:
            if not len(part.ids) or part.ids.min() < 0 or part.ids.max() >= self.num_samples:
                raise ValueError(f"a selection must name samples from 0 to {self.num_samples - 1}")
            if not (math.isfinite(part.share) and part.share > 0):
                raise ValueError(f"the share of a part must be above 0, not {part.share}")

    def _choose(self, selection: Selection | None) -> None:
        self.selection = selection
        self._mixture = None if selection is None else _Mixture(selection, self.seed)


class _Mixture:
    """The endless stream of a selection's ids.

    Args:
        selection: What is drawn from.
        seed: Selects the order.
    """

    def __init__(self, selection: Selection, seed: int) -> None:
        self._selection = selection
        self._seed = seed
        pattern = _pattern(selection, seed)
        # For each place, how often its own part stands before it; and for each part, how often it stands there in all.
        self._pattern = pattern
        self._before = np.zeros_like(pattern)
        self._counts = np.bincount(pattern, minlength=len(selection.parts))
        for number in range(len(selection.parts)):
            here = pattern == number
            self._before[here] = np.arange(self._counts[number])

    def ids(self, start: int, count: int) -> Ids:
        """Return the ids [count] at positions from ``start`` on."""
        positions = np.arange(start, start + count, dtype=np.int64)
        if len(self._selection.parts) == 1:
            return self._drawn(0, positions)
        rounds, places = np.divmod(positions, len(self._pattern))
        parts = self._pattern[places]
        drawn = rounds * self._counts[parts] + self._before[places]
        ids = np.empty_like(positions)
        for number in np.unique(parts):
            here = parts == number
            ids[here] = self._drawn(int(number), drawn[here])
        return ids

    def _drawn(self, number: int, positions: Ids) -> Ids:
        """The ids that a part gives at its own positions."""
        part = self._selection.parts[number]
        epochs, places = np.divmod(positions, len(part.ids))
        if self._selection.shuffled:
            for epoch in np.unique(epochs):
                here = epochs == epoch
                places[here] = permute(places[here], len(part.ids), seed=self._seed + number, epoch=int(epoch))
        found: Ids = part.ids[places]
        return found


def _pattern(selection: Selection, seed: int) -> Ids:
    """The part that each of :data:`_SLOTS` places draws from, mixed."""
    shares = np.array([part.share for part in selection.parts], dtype=np.float64)
    exact = shares / shares.sum() * _SLOTS
    slots = np.maximum(1, np.floor(exact).astype(np.int64))
    # What is missing goes to those that lost most by rounding.
    for number in np.argsort(slots - exact, kind="stable"):
        slots[number] += int(slots.sum() < _SLOTS)
    ordered = np.repeat(np.arange(len(slots), dtype=np.int64), slots)
    return ordered[permute(np.arange(len(ordered), dtype=np.int64), len(ordered), seed=seed, epoch=0)]
