"""Which state of a training is the best, and which one is published."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from clew.checkpoints import Checkpoint, CheckpointStore
from clew.errors import RunFailed
from clew.runs import Run

if TYPE_CHECKING:
    from clew.jobs.probe import EvaluateConfig

Published = Literal["last", "best"]
"""Which weights become the artifact: those after the last step, or those of the best checkpoint."""


@dataclass(frozen=True)
class Rating:
    """The logged metric that decides which state is the best."""

    metric: str
    higher_is_better: bool = False

    @classmethod
    def chosen(cls, evaluate: EvaluateConfig | None, loss: str) -> Rating:
        """Return ``evaluate.best_by`` where there is one, else the validation loss, which is logged as ``loss``."""
        if evaluate is None or evaluate.best_by is None:
            return cls(loss)
        return cls(f"eval/{evaluate.best_by}", not evaluate.lower_is_better)

    def of(self, measured: Mapping[str, float]) -> float | None:
        """Return how good a state with these metrics is, the lowest being the best; None when nothing says so."""
        value = measured.get(self.metric)
        if value is None or math.isnan(value):
            return None
        return -value if self.higher_is_better else value


def best_checkpoint(run: Run) -> Checkpoint:
    """Return the checkpoint that is published as the best.

    Raises:
        RunFailed: If none was rated, because what decides was never a number.
    """
    best = CheckpointStore(run.checkpoints).best()
    if best is None:
        raise RunFailed(
            "there is no best checkpoint to publish: what decides about it was never measured, or was never a number",
            hint="look at the metric in the journal, or set publish=last",
        )
    return best
