"""The endless stream of sample ids: epoch after epoch, each in its own order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clew.data.mixture import places_at
from clew.data.order import Ids


@dataclass(frozen=True)
class SampleStream:
    """Which sample comes when.

    The stream is a pure function of its position, so all that a checkpoint has to keep is the number of samples seen;
    and it is the same stream for every batch size, and for every number of ranks that cut a batch among them.

    Args:
        num_samples: Size of the data set, at least 1.
        seed: Selects the order.
    """

    num_samples: int
    seed: int

    def __post_init__(self) -> None:
        if self.num_samples < 1:
            raise ValueError("a stream needs at least one sample")

    def batch(self, samples_seen: int, batch_size: int) -> Ids:
        """Return the ids [batch_size] int64 that follow after `samples_seen`; it may cross any number of epochs."""
        positions = np.arange(samples_seen, samples_seen + batch_size, dtype=np.int64)
        return places_at(positions, self.num_samples, seed=self.seed)

    def epoch(self, samples_seen: int) -> int:
        """Return the epoch, from 0, that the next sample belongs to."""
        return samples_seen // self.num_samples
