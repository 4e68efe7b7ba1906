"""Which samples come next: a position, a batch size, and what of the data is chosen.

Everything is a pure function of the position, so a batch may change its size between any two steps, and a checkpoint
holds a few numbers; the ids of a selection are all that it adds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from clew.data.mixture import Listed, Mixture, Range
from clew.data.order import Ids
from clew.data.stream import SampleStream
from clew.inspection.samples import Part, Selection

_SELECTED_SLOTS = 1024
_SOURCE_SLOTS = 1 << 16
"""Places of a mixture's pattern. A source may be one of hundreds, and its share still has to be met."""
_DRAWN = 1 << 15
"""Ids that are drawn at once, at the most: to permute a few of them costs as much as to permute many."""


class Feed:
    """Hands out sample ids, batch after batch, without an end.

    Args:
        num_samples: Size of the data set, at least 1.
        seed: Selects the order.
        batch_size: Samples in one batch; may be changed between two batches.
        shuffled: Whether each epoch has another order; else samples come as they are numbered.
        shares: Size and share of each source that the data set is joined of; empty for one that is drawn from evenly.
            Only the ratios of shares count. Which of them follow upon each other is the seed's, shuffled or not.

    Attributes:
        samples_seen: How many have been handed out since the beginning.
        selection: What is trained on; None is everything.
    """

    def __init__(
        self,
        num_samples: int,
        seed: int,
        batch_size: int,
        *,
        shuffled: bool = True,
        shares: Sequence[tuple[int, float]] = (),
    ) -> None:
        if shares and sum(size for size, _ in shares) != num_samples:
            raise ValueError("the sources' sizes do not add up to the number of samples")
        self.num_samples = num_samples
        self.seed = seed
        self.batch_size = batch_size
        self.samples_seen = 0
        self.selection: Selection | None = None
        self._shuffled = shuffled
        self._since = 0
        self._all = SampleStream(num_samples, seed)
        starts = np.cumsum([0, *(size for size, _ in shares)]).tolist()
        sources = [Range(start, *source) for start, source in zip(starts, shares, strict=False)]
        self._joined = Mixture(sources, seed, slots=_SOURCE_SLOTS, shuffled=shuffled) if shares else None
        self._mixture = self._joined
        self._drawn = np.empty(0, dtype=np.int64)
        self._drawn_from = 0

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

    def peek(self, count: int, ahead: int = 0) -> Ids:
        """Return the ids [count] int64 that come next, or those that come ``ahead`` samples later."""
        start = self.samples_seen + ahead
        first = start - self._drawn_from
        if not 0 <= first <= len(self._drawn) - count:
            # An epoch at the most: each one has an order of its own, which has its price.
            self._drawn, self._drawn_from, first = self._at(start, max(count, min(_DRAWN, self._size))), start, 0
        return self._drawn[first : first + count].copy()

    def counts(self, end: int) -> list[int]:
        """Return how many samples of each source are among the first ``end`` of the run; empty without shares.

        It is what is expected as long as nothing is selected.
        """
        return [] if self._joined is None else self._joined.counts(end).tolist()

    @property
    def _size(self) -> int:
        return self.num_samples if self._mixture is None else self._mixture.size

    def _at(self, start: int, count: int) -> Ids:
        """The ids [count] from a position on."""
        if self._mixture is not None:
            return self._mixture.ids(start - self._since, count)
        if self._shuffled:
            return self._all.batch(start, count)
        return np.arange(start, start + count, dtype=np.int64) % self.num_samples

    def select(self, selection: Selection | None) -> None:
        """Hand out only these from now on, beginning a new epoch; None is everything, where it would be by now.

        Raises:
            ValueError: If there is no part, a part is empty, or an id or a share is none; nothing is changed then.
        """
        if selection is not None:
            self._check(selection)
        self._choose(selection, self.samples_seen if selection is not None else 0)

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
        self.samples_seen, since, chosen = state["samples_seen"], state["since"], state["selection"]
        if chosen is None:
            self._choose(None, since)
            return
        ids = [np.asarray(part, dtype=np.int64) for part in chosen["ids"]]
        parts = tuple(Part(part, share) for part, share in zip(ids, chosen["shares"], strict=True))
        self._choose(Selection(parts, chosen["recipe"], chosen["shuffled"]), since)

    def _check(self, selection: Selection) -> None:
        if not selection.parts:
            raise ValueError("a selection must have a part")
        for part in selection.parts:
            if not len(part.ids) or part.ids.min() < 0 or part.ids.max() >= self.num_samples:
                raise ValueError(f"a selection must name samples from 0 to {self.num_samples - 1}")
            if not (math.isfinite(part.share) and part.share > 0):
                raise ValueError(f"the share of a part must be above 0, not {part.share}")

    def _choose(self, selection: Selection | None, since: int) -> None:
        self.selection, self._since = selection, since
        self._drawn = self._drawn[:0]
        if selection is None:
            self._mixture = self._joined
            return
        sources = [Listed(part.ids, part.share) for part in selection.parts]
        self._mixture = Mixture(sources, self.seed, slots=_SELECTED_SLOTS, shuffled=selection.shuffled)
