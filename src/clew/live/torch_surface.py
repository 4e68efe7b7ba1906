"""The control surface of any PyTorch program: everything that can be asked of one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
from torch import Tensor

from clew.data.order import permute
from clew.errors import UserError, did_you_mean
from clew.inspection.samples import Scorer
from clew.live.merging import merge_into, open_state
from clew.live.torch_data import Samples, moved
from clew.live.torch_parts import Parts
from clew.live.torch_scoring import Judge, TorchScorer, undisturbed
from clew.live.torch_training import STATE, TorchTraining
from clew.merging.information import live_information
from clew.merging.methods.fisher import Fisher
from clew.merging.weights import Weights
from clew.session.surface import MergeRequest

Evaluate = Callable[[], Mapping[str, Any]]


class TorchSurface(TorchTraining):
    """A training that can besides be evaluated, inspected, merged and examined.

    Args:
        parts: Models, optimizers, and what belongs to them.
        splits: The samples by the name of their split; ``train`` is what is trained on, where it is known.
        evaluate: Measures the model; called in evaluation mode, without gradients. None where nothing can.
        judge: Judges the samples of a batch; None where nobody can.
        around: Surrounds the model's work when it is looked at, such as with autocast.
        training: The other arguments of :class:`TorchTraining`.
    """

    def __init__(
        self,
        parts: Parts,
        *,
        splits: Mapping[str, Samples] | None = None,
        evaluate: Evaluate | None = None,
        judge: Judge | None = None,
        around: Callable[[], AbstractContextManager[Any]] = nullcontext,
        **training: Any,
    ) -> None:
        super().__init__(parts, samples=(splits or {}).get("train"), **training)
        self._splits = splits or {}
        self._evaluate = evaluate
        self._judge = judge
        self._around = around

    def evaluate(self) -> Mapping[str, float]:
        """Measure the model as it is, and change nothing.

        Raises:
            UserError: If the program has not said how.
        """
        if self._evaluate is None:
            raise UserError("there is nothing to evaluate", hint="say how: evaluate=..., a function without arguments")
        with self.idle(), undisturbed(self.parts.whole), self._around():
            return {name: float(value) for name, value in self._evaluate().items()}

    def scorer(self, split: str) -> Scorer:
        """Return what scores a split with the weights of the moment.

        Raises:
            UserError: If there is no such split, or nobody knows the loss of a single sample.
        """
        if split not in self._splits:
            raise UserError(f"this run has no split {split!r}; {did_you_mean(split, self._splits) or 'it has no data'}")
        samples = self._splits[split]
        size = samples.batch_size or (self.feed.batch_size if self.feed is not None else 1)
        return TorchScorer(
            self.parts.whole,
            samples,
            self._judged(),
            batch_size=size,
            device=self.parts.device,
            around=self._around,
        )

    def merge(self, request: MergeRequest) -> Mapping[str, Any]:
        """Take weights that are merged from checkpoints, or from these and the present ones.

        Raises:
            UserError: If they do not fit together; then nothing has changed.
        """
        self.settle()
        with self.idle():
            said = merge_into(
                self.parts.tensors(),
                request,
                partial(open_state, name=STATE, path=("models",)),
                fisher=None if self._judge is None else self._information,
            )
        if request.optimizer == "reset":
            self.parts.forget_moments()
        self.window.clear()
        return said

    def health(self) -> Mapping[str, Any]:
        """Return how the training is doing, as :func:`clew.health.report.health_report` says it; changes nothing."""
        data: dict[str, Any] = {"seed": self.seed}
        if self.feed is not None:
            chosen = self.feed.selection
            data |= {"samples_seen": self.feed.samples_seen, "epoch": self.feed.epoch}
            data |= {"selected": chosen.size if chosen else None}
        forward = self._look_ahead if self.feed is not None and self._judge is not None else None
        return self.probe.report(
            self.parts.whole, list(self.parts.optimizers.values()), forward=forward, data=data, step=self.step_number
        )

    def _judged(self) -> Judge:
        if self._judge is None:
            raise UserError(
                "nobody knows how well the model knows a single sample",
                hint="give loss_fn=..., or losses=..., a function from a batch to the loss of each sample",
            )
        return self._judge

    def _look_ahead(self) -> None:
        """Run the next samples through the model."""
        assert self.feed is not None
        batch = self._splits["train"].fetch(self.feed.peek(self.feed.batch_size))
        with self._around():
            self._judged()(moved(batch, self.parts.device))

    def _information(self, weights: Weights, method: Fisher) -> Mapping[str, Tensor]:
        """The Fisher information of weights, on samples of a split."""
        if method.split not in self._splits:
            raise UserError(f"this run has no {method.split} samples to estimate the Fisher information on")
        samples = self._splits[method.split]
        ids = permute(np.arange(samples.size, dtype=np.int64), samples.size, seed=self.seed, epoch=0)
        likelihoods = (partial(self._loss_of, samples, number) for number in islice(ids, method.samples))
        return live_information(self.parts.whole, weights, likelihoods)

    def _loss_of(self, samples: Samples, number: int) -> Tensor:
        batch = moved(samples.fetch(np.array([number], dtype=np.int64)), self.parts.device)
        return self._judged()(batch).losses.sum()
