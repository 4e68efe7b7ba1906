"""The native trainer as the job `pretrain` runs it: with a decoder, its tokenizer and texts, and all that can be asked.

Its checkpoints also hold the model as other programs load it, so that ``run:NAME@best`` needs no export.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from clew.checkpoints.rng import kept_rng
from clew.checkpoints.shards import Stored
from clew.data.order import permute
from clew.data.packing import IGNORED, Samples
from clew.errors import UserError, did_you_mean
from clew.inspection.samples import Scorer
from clew.models.decoder import Decoder
from clew.models.exchange import save_huggingface
from clew.session.surface import MergeRequest
from clew.train.config import TrainingConfig
from clew.train.loop import Trainer
from clew.train.losses import summed_loss
from clew.train.saved import STATE
from clew.train.scoring import WindowScorer
from clew.train.slices import Slices, Whole

if TYPE_CHECKING:
    from clew.merging.methods.fisher import Fisher
    from clew.merging.weights import Weights

EXPORTED = "model"
"""The folder of a checkpoint that other programs load."""


class Pretrainer(Trainer):
    """A trainer that can besides be evaluated, inspected and merged.

    Args:
        model: The decoder, on its device.
        tokenizer: Its tokenizer.
        splits: The packed texts by the name of their split; ``train`` is what is trained on.
        config: Batch, optimizer, schedule.
        lr: Peak learning rate.
        total_steps: Length of the run.
        seed: Of the sample order.
        problems: Measures how the task's problems are answered, and draws nothing that the training draws; None where
            none are asked.
        workers: Threads that read batches ahead.
        shares: Size and share of each source of ``train``; empty where it is one.
        slices: How the training is cut among processes; None for one.
    """

    def __init__(
        self,
        model: Decoder,
        tokenizer: Any,
        splits: Mapping[str, Samples],
        config: TrainingConfig,
        *,
        lr: float,
        total_steps: int,
        seed: int,
        problems: Callable[[], dict[str, float]] | None = None,
        workers: int = 0,
        shares: Sequence[tuple[int, float]] = (),
        slices: Slices | None = None,
    ) -> None:
        export = partial(_export, model, tokenizer)
        super().__init__(
            model,
            splits["train"],
            config,
            lr=lr,
            total_steps=total_steps,
            seed=seed,
            export=export,
            slices=slices,
            workers=workers,
            shares=shares,
        )
        self.problems = problems
        self._decoder = model
        self._tokenizer = tokenizer
        self._splits = splits
        self._seed = seed

    @property
    def held_out(self) -> Samples | None:
        """What the validation loss is measured on; None where the task has no such text."""
        return self._splits.get("validation")

    def export(self, folder: Path) -> None:
        """Write the model as other programs load it; on a mesh all ranks call it, and each gets a folder."""
        if isinstance(self.slices, Whole):
            save_huggingface(self._decoder, self._tokenizer, folder)
        else:
            from clew.jobs.streaming import stream_huggingface  # of no use to a single process

            stream_huggingface(self._decoder, self._tokenizer, self.slices.whole(self.model.named_parameters()), folder)

    def evaluate(self) -> Mapping[str, float]:
        """Measure the validation loss, and how the task's problems are answered, where there are such; change nothing.

        Raises:
            UserError: If there is neither.
        """
        if self.held_out is None and self.problems is None:
            raise UserError(
                "there is nothing to evaluate: the task has no text to validate on, and the config asks no problems",
                hint="with `evaluate` in the config the task's problems are asked",
            )
        found: dict[str, float] = {}
        with kept_rng(), self.idle():
            if self.held_out is not None:
                found["val_loss"] = self.loss_on(self.held_out)
            if self.problems is not None:
                found |= self.problems()
        return found

    def scorer(self, split: str) -> Scorer:
        """Return what scores the windows of a split; the windows of ``train`` are the samples of selections.

        Raises:
            UserError: If there is no such split.
        """
        if split not in self._splits:
            raise UserError(f"this run has no split {split!r}; {did_you_mean(split, self._splits)}")
        return WindowScorer(
            self._decoder,
            self._splits[split],
            self._tokenizer.decode,
            batch_size=self.micro_batch_size,
            precision=self.precision,
            slices=self.slices,
        )

    def merge(self, request: MergeRequest) -> Mapping[str, Any]:
        """Take weights that are merged from checkpoints, or from these and the present ones.

        Raises:
            UserError: If they do not fit together; then nothing has changed.
        """
        from clew.live.merging import merge_into, open_state  # few runs are merged, and every run has to start

        self.settle()
        with self.idle():
            said = merge_into(
                dict(self.model.named_parameters()), request, partial(open_state, name=STATE), fisher=self._information
            )
        if request.optimizer == "reset":
            self.optimizers.forget()
        return said

    def _information(self, weights: Weights, method: Fisher) -> Mapping[str, Tensor]:
        """The Fisher information of weights, on windows of a split."""
        from clew.merging.information import live_information

        samples = self._splits.get(method.split)
        if samples is None:
            raise UserError(f"this run has no {method.split} text to estimate the Fisher information on")
        return live_information(self.model, weights, self._losses(samples, method))

    def _losses(self, samples: Samples, method: Fisher) -> Iterator[Callable[[], Tensor]]:
        ids = permute(np.arange(len(samples), dtype=np.int64), len(samples), seed=self._seed, epoch=0)
        for one in islice(ids, method.samples):
            batch = samples.batch(np.array([one]))
            kept = int((batch.targets != IGNORED).sum())
            inputs, targets = (
                torch.from_numpy(part[:, : min(kept, method.max_length)]).to(self.device)
                for part in (batch.inputs, batch.targets)
            )
            yield partial(summed_loss, self.model, inputs, targets, precision=torch.float32)


def _export(model: Decoder, tokenizer: Any, weights: Mapping[str, Tensor | Stored], directory: Path) -> None:
    whole = {name: weight for name, weight in weights.items() if isinstance(weight, Tensor)}
    if whole:
        save_huggingface(model, tokenizer, directory / EXPORTED, whole)
    else:
        from clew.jobs.streaming import read_all, stream_huggingface

        stored = {name: weight for name, weight in weights.items() if isinstance(weight, Stored)}
        stream_huggingface(model, tokenizer, read_all(stored), directory / EXPORTED)
