"""What a set of scored answers says about a model: means, pass@k, and how far the number of problems pins them down.

The problems are the independent observations. Several answers to one problem are not: they are averaged first, and
intervals are over problems.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Z_95 = 1.959963984540054
"""The 97.5 % quantile of the standard normal distribution."""
RESAMPLES = 2000
_CHUNK = 1 << 22


@dataclass(frozen=True)
class Interval:
    """A 95 % confidence interval."""

    low: float
    high: float
    method: Literal["wilson", "bootstrap"]


def pass_at_k(samples: int, successes: int, k: int) -> float:
    """Estimate the probability that at least one of k answers is right, without bias.

    ``1 - C(n - c, k) / C(n, k)`` (Chen et al. 2021, arXiv:2107.03374, equation 1), as the product of ``1 - k / i`` for
    i from n - c + 1 to n: binomial coefficients of a few hundred overflow.

    Args:
        samples: n, the number of answers to the problem.
        successes: c, how many of them are right.
        k: At most n.
    """
    if not 0 <= successes <= samples or not 1 <= k <= samples:
        raise ValueError(f"pass@{k} of {successes} successes in {samples} samples")
    if samples - successes < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / i for i in range(samples - successes + 1, samples + 1))


def mean(values: Sequence[float]) -> float:
    """Return the mean, exactly rounded: it does not depend on the order."""
    try:
        return math.fsum(values) / len(values)
    except (OverflowError, ValueError):  # infinities of both signs
        return math.nan


def wilson_interval(share: float, trials: float) -> Interval:
    """Return the score interval of a proportion.

    It stays in [0, 1] and does not shrink to a point at 0 and 1 (E. B. Wilson, J. Am. Stat. Assoc. 22 (1927), 209-212).

    Args:
        share: Of successes, in [0, 1].
        trials: How many independent trials it is worth; need not be whole.
    """
    z2 = Z_95 * Z_95
    centre = share + z2 / (2 * trials)
    spread = Z_95 * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials * trials))
    scale = 1 + z2 / trials
    # At the ends rounding could leave the interval a hair beside the share that it must contain.
    return Interval(
        max(0.0, min(share, (centre - spread) / scale)), min(1.0, max(share, (centre + spread) / scale)), "wilson"
    )


def proportion_interval(shares: Sequence[float], answers: int = 1) -> Interval:
    """Return the interval of a proportion from each problem's share of successes.

    With one answer a problem it is Wilson's. With several, Wilson's with the *effective* number of trials
    ``p (1 - p) / s²``, s being the standard error over problems (L. Kish, Survey Sampling, 1965, on design effects;
    E. L. Korn & B. I. Graubard, Survey Methodology 24 (1998), 193-201, on intervals by them). That number is between
    the problems, as shares cannot vary more than single answers do, and all answers, as if none depended on another.

    Args:
        shares: One for each problem, in [0, 1]; at least one.
        answers: The most independent answers that a share is made of.
    """
    number, share = len(shares), mean(shares)
    squares = math.fsum((one - share) ** 2 for one in shares)
    if number < 2 or squares == 0:
        return wilson_interval(share, number)
    variance = squares / (number - 1) / number
    return wilson_interval(share, min(number * answers, max(number, share * (1 - share) / variance)))


def bootstrap_interval(values: Sequence[float], seed: int) -> Interval | None:
    """Return the percentile bootstrap interval of a mean (B. Efron, Ann. Statist. 7 (1979), 1-26).

    Args:
        values: One for each problem.
        seed: Of the resampling; the same values and seed give the same interval.

    Returns:
        None for fewer than two values, and for values that are not finite: nothing is known of their spread.
    """
    import numpy as np

    row = np.sort(np.asarray(values, dtype=np.float64))  # sorted: the order must not decide who is drawn
    if len(row) < 2 or not np.isfinite(row).all():
        return None
    generator = np.random.Generator(np.random.PCG64(seed))
    rows = max(1, _CHUNK // len(row))
    means = [
        row[generator.integers(0, len(row), (min(rows, RESAMPLES - done), len(row)))].mean(axis=1)
        for done in range(0, RESAMPLES, rows)
    ]
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
    return Interval(float(low), float(high), "bootstrap")
