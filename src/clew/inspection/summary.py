"""The figures of a whole inspection."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clew.inspection.clusters import Labels
from clew.inspection.parts import columns_of, numbers

if TYPE_CHECKING:
    from clew.inspection.samples import Floats

_QUANTILES = {"min": 0, "p05": 0.05, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p95": 0.95, "max": 1}


def summarize(folder: Path, loss: Floats, labels: Labels) -> dict[str, Any]:
    """Return the figures of an inspection, as JSON.

    Args:
        folder: The inspection's.
        loss: [n] float64.
        labels: [n] int32, the samples' clusters, from 1; 0 for none.
    """
    margin = numbers(folder, "margin")
    return {
        "samples": len(loss),
        "loss": spread(loss),
        "margin": spread(margin),
        "length": spread(numbers(folder, "length")),
        "clusters": [
            {
                "cluster": number,
                "samples": int((labels == number).sum()),
                "loss": _mean(loss[labels == number]),
                "margin": _mean(margin[labels == number]),
            }
            for number in range(1, int(labels.max(initial=0)) + 1)
        ],
        "columns": columns_of(folder),
    }


def spread(values: Floats) -> dict[str, Any] | None:
    """Return count, mean, standard deviation and quantiles of the finite ones; None when there are none."""
    known = values[np.isfinite(values)]
    if not len(known):
        return None
    found = np.quantile(known, list(_QUANTILES.values()))
    return {
        "count": len(known),
        "mean": float(known.mean()),
        "std": float(known.std()),
        **{name: float(value) for name, value in zip(_QUANTILES, found, strict=True)},
    }


def _mean(values: Floats) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None
