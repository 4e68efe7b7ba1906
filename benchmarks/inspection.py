"""What an inspection of a million samples takes beside the model: memory, which must not grow with them, and time.

The scorer costs next to nothing, so what is measured is ours. ``--samples N`` takes another number.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from common import Figure

from clew.inspection import Scores
from clew.inspection.inspecting import Options, inspect
from clew.inspection.recipes import parse

WIDTH = 64
FEW = 20_000
PROMISED_MB = 100.0
PROMISED_RATE = 10_000.0


class Scorer:
    """Makes its samples up: four tokens each, an embedding, and a field."""

    batch_size = 512

    def __init__(self, size: int) -> None:
        self._size = size

    def __len__(self) -> int:
        return self._size

    def score(self, ids: np.ndarray, *, tokens: bool = False) -> Scores:
        """Return losses that look like those of a model."""
        loss = 2 + np.sin(ids * 0.7) + ids % 3
        embedding = np.sin(np.outer(ids, np.arange(1, WIDTH + 1)) * 0.01).astype(np.float32)
        parts = np.stack([loss * 0.5, loss, loss * 1.5, loss], axis=1).astype(np.float32) if tokens else ()
        return Scores(loss, -loss, embedding, [["It", " is", " so", "."]] * len(ids) if tokens else (), list(parts))

    def fields(self, ids: np.ndarray) -> list[Mapping[str, Any]]:
        """Return a text of some words and a source."""
        return [{"text": f"Sample {number}: It is so.", "length": 7, "source": "web"} for number in ids.tolist()]


def peak_mb() -> float:
    """Return the most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Print memory and time."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--samples", type=int, default=1_000_000)
    size = parser.parse_args().samples
    with tempfile.TemporaryDirectory() as folder:
        # A small one first: libraries and buffers are there then.
        inspect(Scorer(FEW), Path(folder) / "small", Options(), identity={})
        before, began = peak_mb(), time.perf_counter()
        inspect(Scorer(size), Path(folder) / "large", Options(), identity={})
        seconds, more = time.perf_counter() - began, peak_mb() - before
        began = time.perf_counter()
        parse("0.7 hardest 15% + 0.3 where 'loss > 3 and source == \"web\"'").select(Scorer(size))
        chosen = time.perf_counter() - began
    what = f"an inspection of {size:,} samples"
    Figure(f"{what}: memory beyond one of {FEW:,}", more, "MB", PROMISED_MB).print()
    Figure(f"{what}, beside the model", size / seconds, "samples/s", PROMISED_RATE, at_least=True).print()
    Figure(f"a selection among {size:,} samples by loss and condition, beside the model", chosen, "s").print()


if __name__ == "__main__":
    main()
