"""Clusters of samples: k-means, the same for a selection and for an inspection.

The centres are fitted to all points or, of many, to a drawn subset of them (scikit-learn's ``KMeans``: Lloyd 1982,
begun by k-means++, Arthur & Vassilvitskii 2007); then each point goes to its nearest centre. So memory is bounded, and
the result depends on points and seed only.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from clew.errors import UserError, require
from clew.inspection.walking import Chunks, Points

if TYPE_CHECKING:
    from clew.inspection.samples import Floats

FIT_POINTS = 20_000
FIT_BYTES = 64 << 20
"""The centres are fitted to at most so many points, and so many bytes of them."""
_RESTARTS = 4

Labels = npt.NDArray[np.int32]


def cluster(chunks: Chunks, loss: Floats, count: int, *, usable: npt.NDArray[np.bool_], seed: int) -> Labels:
    """Sort points into clusters.

    Args:
        chunks: The points' rows [n, D], in their order.
        loss: [n] float64, by whose mean the clusters are numbered.
        count: How many clusters, at least 1.
        usable: Which points take part, as [n] bool: those that have finite coordinates.
        seed: Of the subset and of the first centres.

    Returns:
        [n] int32: 1 for the cluster of the lowest mean loss, and so on; of equal means, the one with the first sample
        is first, and those without a loss are last. 0 for points that take no part.

    Raises:
        UserError: If there are fewer points than clusters.
        MissingLibrary: Without scikit-learn.
    """
    places = np.flatnonzero(usable)
    if len(places) < count:
        raise UserError(f"there are {len(places)} samples to make {count} clusters of")
    centres = _fit(_drawn(chunks, places, count, seed), count, seed)
    labels = np.zeros(len(loss), dtype=np.int32)
    start = 0
    for part in chunks():
        rows = slice(start, start + len(part))
        labels[rows] = np.where(usable[rows], 1 + _nearest(part, centres), 0)
        start += len(part)
    return _by_mean(labels, loss, count)


def _drawn(chunks: Chunks, places: npt.NDArray[np.int64], count: int, seed: int) -> Points:
    """The points to fit to: all that take part, or as many as the bounds allow."""
    width = next(chunks()).shape[1]
    limit = max(count, min(FIT_POINTS, FIT_BYTES // (4 * width)))
    if len(places) > limit:
        places = np.sort(np.random.default_rng(seed).choice(places, limit, replace=False))
    found, start = [], 0
    for part in chunks():
        first, last = np.searchsorted(places, (start, start + len(part)))
        found.append(part[places[first:last] - start])
        start += len(part)
    return np.concatenate(found)


def _fit(points: Points, count: int, seed: int) -> Points:
    cluster = require("sklearn.cluster", extra="live")
    problems = require("sklearn.exceptions", extra="live")
    pools = require("threadpoolctl", extra="live")
    with warnings.catch_warnings(), pools.threadpool_limits(1):  # sums of several threads differ from run to run
        warnings.simplefilter("ignore", problems.ConvergenceWarning)  # fewer different points than clusters
        fitted = cluster.KMeans(count, n_init=_RESTARTS, random_state=seed).fit(points)
    centres: npt.NDArray[Any] = fitted.cluster_centers_
    return centres.astype(np.float64)


def _nearest(points: Points, centres: Points) -> npt.NDArray[np.int64]:
    """The number of each point's nearest centre; of equally near ones the first."""
    with np.errstate(invalid="ignore"):  # points that take no part may not be numbers
        products = points.astype(np.float64) @ centres.T
        found: npt.NDArray[np.int64] = ((centres**2).sum(axis=1) - 2 * products).argmin(axis=1)
    return found


def _by_mean(labels: Labels, loss: Floats, count: int) -> Labels:
    """Number clusters anew by their mean loss."""
    known = np.isfinite(loss) & (labels > 0)
    sums = np.bincount(labels[known], weights=loss[known], minlength=count + 1)[1:]
    sizes = np.bincount(labels[known], minlength=count + 1)[1:]
    means = np.full(count, np.inf)
    np.divide(sums, sizes, out=means, where=sizes > 0)
    firsts = np.full(count + 1, len(labels))
    np.minimum.at(firsts, labels, np.arange(len(labels)))
    order = np.lexsort((firsts[1:], means))
    ranks = np.zeros(count + 1, dtype=np.int32)
    ranks[1 + order] = np.arange(1, count + 1)
    return ranks[labels]
