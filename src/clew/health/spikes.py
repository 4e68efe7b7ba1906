"""Loss spikes: values that stand out of those before them, by median and median deviation."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

WINDOW = 32
"""How many values before one say what is usual."""
LEAST = 8
"""With fewer values before it, nothing can be said of one."""
DEVIATIONS = 10.0
"""A spike lies so many robust standard deviations above the median: the noise of small batches has long tails, and six,
which normal noise reaches once in 10^9 values, were reached by it often."""
RELATIVE = 0.2
"""And it lies above the median by so much of it: where losses hardly vary at all, a small change is no spike."""
SIGMA = 1.4826
"""Of normal noise, the standard deviation is so many median absolute deviations (1 / Φ⁻¹(3/4))."""
RECOVERY = 8
"""If so many values after a spike are all above what it was measured by, the loss has not come back."""


@dataclass(frozen=True)
class Spike:
    """A rise of the loss out of the usual, of one value or several in a row.

    Attributes:
        index: Number of its first value, from 0.
        value: The highest value.
        usual: The median before it.
        limit: What a value had to exceed to be one.
        last: Number of its last value.
    """

    index: int
    value: float
    usual: float
    limit: float
    last: int


class SpikeFinder:
    """Looks at losses one after the other, in bounded memory.

    Values that are not finite are no spikes; they are counted, and left out of what is usual.

    Attributes:
        count: The values so far.
        not_finite: Those of them that were not finite.
        lost: Number of the first of those; None without one.
        spikes: What was found, in order.
    """

    def __init__(self) -> None:
        self.count = 0
        self.not_finite = 0
        self.lost: int | None = None
        self.spikes: list[Spike] = []
        self._recent: deque[float] = deque()
        self._ordered: list[float] = []
        self._above = 0  # how many values came since the newest spike's limit was last kept

    def add(self, value: float) -> None:
        """Look at the next value."""
        index = self.count
        self.count += 1
        if not math.isfinite(value):
            self.not_finite += 1
            self.lost = index if self.lost is None else self.lost
            return
        if len(self._ordered) >= LEAST and (limit := self._limit(value)) is not None:
            self._note(index, value, limit)
        self._remember(value)
        if self.spikes:
            self._above = 0 if value <= self.spikes[-1].limit else self._above + 1

    @property
    def has_recovered(self) -> bool:
        """Whether the loss came back under the newest spike's limit, or that cannot be told yet."""
        return not self.spikes or self._above <= RECOVERY

    def _limit(self, value: float) -> float | None:
        """Return what a value exceeds that is a spike; None for one that is none. Most are told by the median alone."""
        middle = _middle(self._ordered)
        if value <= middle + RELATIVE * abs(middle):
            return None
        deviation = SIGMA * median(abs(other - middle) for other in self._ordered)
        limit = middle + max(DEVIATIONS * deviation, RELATIVE * abs(middle))
        return limit if value > limit else None

    def _note(self, index: int, value: float, limit: float) -> None:
        """Begin a spike, or make the one longer that the last value belonged to."""
        before = self.spikes[-1] if self.spikes else None
        if before is not None and before.last == index - 1:
            self.spikes[-1] = Spike(before.index, max(value, before.value), before.usual, before.limit, index)
        else:
            self.spikes.append(Spike(index, value, _middle(self._ordered), limit, index))
            self._above = 0

    def _remember(self, value: float) -> None:
        self._recent.append(value)
        insort(self._ordered, value)
        if len(self._recent) > WINDOW:
            del self._ordered[bisect_left(self._ordered, self._recent.popleft())]


def find_spikes(losses: Iterable[float]) -> list[Spike]:
    """Return the spikes of some losses, in order.

    A value is one that exceeds the median of the 32 before it by ten robust standard deviations (1.4826 times the
    median absolute deviation; Rousseeuw & Croux 1993, doi:10.1080/01621459.1993.10476408) and by a fifth of the median.
    """
    finder = SpikeFinder()
    for value in losses:
        finder.add(value)
    return finder.spikes


def _middle(ordered: list[float]) -> float:
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
