"""The little statistics that a report needs."""

from __future__ import annotations

from dataclasses import dataclass

from clew.jobs.estimates import wilson_interval


@dataclass
class Tally:
    """The values of one metric over the examples of an evaluation."""

    count: int = 0
    total: float = 0.0
    is_proportion: bool = True
    """Whether every value was 0 or 1, so that the mean is a share of the examples."""

    def add(self, value: float) -> None:
        """Count one example."""
        self.count += 1
        self.total += value
        self.is_proportion = self.is_proportion and value in (0.0, 1.0)

    @property
    def mean(self) -> float | None:
        """The mean; None without examples."""
        return self.total / self.count if self.count else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % Wilson interval; None when the metric is no proportion."""
        if not self.count or not self.is_proportion:
            return None
        found = wilson_interval(self.total / self.count, self.count)
        return found.low, found.high
