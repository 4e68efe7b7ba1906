"""How well a Lightning module knows single samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from clew.data.order import Ids
from clew.inspection.samples import Scorer, Scores
from clew.live.lightning_undisturbed import to_device, training_loss, untraced
from clew.live.torch_data import Samples
from clew.live.torch_scoring import Judge, Judged, TorchScorer

Losses = Callable[[Any, Any], Tensor]
"""From a module and a batch on its device to the loss [B] of each sample."""


def judge_of(trainer: Any, losses: Losses | None) -> Judge:
    """Return what judges the samples of a batch.

    Args:
        trainer: A trainer that fits.
        losses: Gives the loss of each sample. Without it, the training step does, and then only for a batch of one.
    """

    def judge(batch: Any) -> Judged:
        here = to_device(trainer, batch)
        if losses is not None:
            return Judged(losses(trainer.lightning_module, here))
        return Judged(training_loss(trainer, here).reshape(1))

    return judge


def scorer_of(trainer: Any, samples: Samples, losses: Losses | None) -> Scorer:
    """Return what scores samples with the weights of the moment.

    Without ``losses`` the training step is called for each sample alone: that fits every module, and is slow.
    """
    scorer = TorchScorer(
        trainer.lightning_module,
        samples,
        judge_of(trainer, losses),
        batch_size=samples.batch_size or 1,
        device=trainer.strategy.root_device,
        around=partial(untraced, trainer),
    )
    return scorer if losses is not None else _Alone(scorer)


class _Alone:
    """Scores samples one by one."""

    def __init__(self, scorer: TorchScorer) -> None:
        self.batch_size = scorer.batch_size
        self._scorer = scorer

    def __len__(self) -> int:
        return len(self._scorer)

    def score(self, ids: Ids, *, tokens: bool = False) -> Scores:
        """Score the samples of these ids [B]."""
        each = [self._scorer.score(ids[place : place + 1]) for place in range(len(ids))]
        embeddings = [one.embedding for one in each if one.embedding is not None]
        whole = len(embeddings) == len(each) > 0
        return Scores(
            np.array([one.loss[0] for one in each], dtype=np.float64),
            embedding=np.concatenate(embeddings) if whole else None,
        )

    def fields(self, ids: Ids) -> list[Mapping[str, Any]]:
        """Return what is known of these samples."""
        return self._scorer.fields(ids)
