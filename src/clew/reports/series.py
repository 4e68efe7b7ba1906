"""Series of any length in bounded memory.

Steps fall into buckets of equal width. When there are too many buckets the width doubles and neighbours are joined, so
neither the length nor the range of a series need be known before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, Self, TypeAlias, TypeVar

Point: TypeAlias = tuple[float, float]
"""Step and value."""

MAX_BUCKETS = 400


class Bucket(Protocol):
    """What is kept of the points whose steps are near each other."""

    def absorb(self, other: Self) -> None:
        """Take over what a neighbour holds."""


BucketT = TypeVar("BucketT", bound=Bucket)


class Buckets(Generic[BucketT]):
    """At most ``limit`` buckets over all steps.

    Args:
        fresh: Makes an empty bucket.
        limit: How many there may be.
    """

    def __init__(self, fresh: Callable[[], BucketT], limit: int = MAX_BUCKETS) -> None:
        self.width = 1
        self._fresh = fresh
        self._limit = limit
        self._buckets: dict[int, BucketT] = {}

    def __len__(self) -> int:
        return len(self._buckets)

    def __iter__(self) -> Iterator[BucketT]:
        return (self._buckets[key] for key in sorted(self._buckets))

    def at(self, step: int) -> BucketT:
        """Return the bucket of a step."""
        while (bucket := self._buckets.get(step // self.width)) is None:
            if len(self._buckets) < self._limit:
                bucket = self._buckets[step // self.width] = self._fresh()
                break
            self._double()
        return bucket

    def drop(self, step: int) -> None:
        """Forget the buckets whose steps are all later than one."""
        self._buckets = {key: bucket for key, bucket in self._buckets.items() if key * self.width <= step}

    def _double(self) -> None:
        self.width *= 2
        joined: dict[int, BucketT] = {}
        for key, bucket in self._buckets.items():
            if key // 2 in joined:
                joined[key // 2].absorb(bucket)
            else:
                joined[key // 2] = bucket
        self._buckets = joined


@dataclass
class _Extremes:
    low: Point | None = None
    high: Point | None = None
    broken: Point | None = None

    def add(self, point: Point) -> None:
        if not math.isfinite(point[1]):
            self.broken = self.broken or (point[0], math.nan)
            return
        if self.low is None or point[1] < self.low[1]:
            self.low = point
        if self.high is None or point[1] > self.high[1]:
            self.high = point

    def absorb(self, other: _Extremes) -> None:
        for point in (other.low, other.high, other.broken):
            if point is not None:
                self.add(point)

    def cut(self, step: int) -> None:
        kept = [None if point is None or point[0] > step else point for point in (self.low, self.high, self.broken)]
        self.low, self.high, self.broken = kept[0] or kept[1], kept[1] or kept[0], kept[2]


class Series:
    """One metric over the steps: the lowest and the highest point of each bucket, so that spikes stay.

    Attributes:
        count: Points that were added.
        not_finite: How many of them were nan or infinite.
        first_not_finite: Step of the first of these.
        last: The last finite point.
    """

    def __init__(self, limit: int = MAX_BUCKETS) -> None:
        self.count = 0
        self.not_finite = 0
        self.first_not_finite: int | None = None
        self.last: Point | None = None
        self._first: Point | None = None
        self._buckets = Buckets(_Extremes, limit)

    def add(self, step: int, value: float) -> None:
        """Add a point; nan and infinities are points too."""
        point = (step, value)
        self._buckets.at(step).add(point)
        self.count += 1
        if math.isfinite(value):
            self._first = self._first or point
            self.last = point
        else:
            self.not_finite += 1
            if self.first_not_finite is None:
                self.first_not_finite = step

    def cut(self, step: int) -> None:
        """Forget the points after a step, which somebody does again; the counts stay those of all that was added.

        Of a bucket that lies on both sides, what was not kept does not come back.
        """
        self._buckets.drop(step)
        for bucket in self._buckets:
            bucket.cut(step)
        self._first = self._first if self._first and self._first[0] <= step else None
        self.last = self.last if self.last and self.last[0] <= step else None
        finite = [point for point in self.points() if math.isfinite(point[1])]
        self._first, self.last = (finite[0], finite[-1]) if finite else (None, None)

    @property
    def is_thinned(self) -> bool:
        """Say whether some points have been left out."""
        return self._buckets.width > 1

    def points(self) -> list[Point]:
        """Return at most three points for each bucket, and both ends; a value that is not finite is given as nan."""
        kept = [point for bucket in self._buckets for point in (bucket.low, bucket.high, bucket.broken)]
        kept += [self._first, self.last]
        unique = dict.fromkeys(point for point in kept if point is not None)
        return sorted(unique, key=lambda point: point[0])


@dataclass
class _Sums:
    count: int = 0
    steps: float = 0.0
    values: float = 0.0

    def absorb(self, other: _Sums) -> None:
        self.count += other.count
        self.steps += other.steps
        self.values += other.values


class MeanSeries:
    """The mean of many values at each step; a long series is averaged over neighbouring steps.

    Attributes:
        count: Values that were added.
        missing: Values that were asked for and not there.
    """

    def __init__(self, limit: int = MAX_BUCKETS) -> None:
        self.count = 0
        self.missing = 0
        self._buckets = Buckets(_Sums, limit)

    def add(self, step: int, value: float | None) -> None:
        """Add a value; None and nan count as missing, for they would spoil the mean."""
        if value is None or not math.isfinite(value):
            self.missing += 1
            return
        bucket = self._buckets.at(step)
        bucket.absorb(_Sums(1, step, value))
        self.count += 1

    def points(self) -> list[Point]:
        """Return one point for each bucket, at the mean of its steps."""
        return [(bucket.steps / bucket.count, bucket.values / bucket.count) for bucket in self._buckets]

    def mean(self, part: slice) -> float | None:
        """Return the mean over a part of the buckets; None when it holds nothing."""
        chosen = list(self._buckets)[part]
        count = sum(bucket.count for bucket in chosen)
        return sum(bucket.values for bucket in chosen) / count if count else None
