"""The little statistics that a report needs."""

from __future__ import annotations

import math
from dataclasses import dataclass

Z_95 = 1.959963984540054
"""The 97.5 % quantile of the standard normal distribution."""


def wilson_interval(successes: int, count: int, z: float = Z_95) -> tuple[float, float]:
    """Return the score interval of a proportion.

    Unlike the usual ``p ± z * sqrt(p * (1 - p) / n)`` it stays in [0, 1] and does not shrink to a point at 0 and 1.

    Source: E. B. Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", Journal of the
    American Statistical Association 22 (1927), 209-212.

    Args:
        successes: How many of the trials succeeded.
        count: Number of trials, at least 1.
        z: Quantile of the standard normal distribution; the default gives 95 %.
    """
    if not 0 <= successes <= count or count < 1:
        raise ValueError(f"{successes} successes in {count} trials")
    share = successes / count
    centre = share + z * z / (2 * count)
    spread = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    # At the ends rounding could leave the interval a hair beside the share that it must contain.
    return max(0.0, min(share, (centre - spread) / scale)), min(1.0, max(share, (centre + spread) / scale))


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
        return wilson_interval(round(self.total), self.count) if self.count and self.is_proportion else None
