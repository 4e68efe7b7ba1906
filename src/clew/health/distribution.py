"""How far the ranks of one training are apart."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

import torch
from torch import distributed

from clew.health.collecting import Collector, Fetched, Section
from clew.health.losses import tidy

_FIGURES = ("median_seconds", "p95_seconds", "data_share")


def collect_distribution(collector: Collector, throughput: Mapping[str, Any] | None, *, together: bool) -> Section:
    """Gather the figures of all ranks in one collective, and ask for them.

    Args:
        collector: Takes the figures.
        throughput: Those of this rank; None where it takes no time.
        together: Whether all ranks are here. A rank that asks alone would wait for the others for ever.
    """
    if not (together and distributed.is_available() and distributed.is_initialized()):
        return lambda fetched: None
    ranks = distributed.get_world_size()
    own = [float("nan") if (value := (throughput or {}).get(name)) is None else value for name in _FIGURES]
    gathered = torch.empty(ranks, len(_FIGURES), dtype=collector.dtype, device=collector.device)
    distributed.all_gather(list(gathered.unbind()), torch.tensor(own, dtype=collector.dtype, device=collector.device))
    where = collector.add(gathered)
    return lambda fetched: _section(fetched[where], ranks)


def _section(fetched: Fetched, ranks: int) -> dict[str, Any]:
    """``{ranks, median_seconds: [one a rank], ..., slowest, skew}``.

    The skew is the slowest rank's median beside the middle one's, and None where a rank takes no time.
    """
    width = len(_FIGURES)
    columns = {
        name: [_known(fetched[rank * width + place]) for rank in range(ranks)] for place, name in enumerate(_FIGURES)
    }
    seconds = [value for value in columns["median_seconds"] if value is not None]
    whole = len(seconds) == ranks and median(seconds) > 0
    return {
        "ranks": ranks,
        **{name: [tidy(value) for value in values] for name, values in columns.items()},
        "slowest": seconds.index(max(seconds)) if whole else None,
        "skew": tidy(max(seconds) / median(seconds)) if whole else None,
    }


def _known(value: float) -> float | None:
    return None if value != value else value
