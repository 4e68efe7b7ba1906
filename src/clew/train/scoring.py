"""How well a decoder knows single samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from clew.data.order import Ids
from clew.data.packing import IGNORED, Samples
from clew.inspection.samples import Scores
from clew.models.decoder import Decoder
from clew.train.slices import Slices, Whole

_Numbers = npt.NDArray[np.float32]
_Means = npt.NDArray[np.float64]


class WindowScorer:
    """Scores windows of tokens with a decoder's weights of the moment; a :class:`clew.inspection.samples.Scorer`.

    Args:
        model: The decoder.
        samples: The split.
        decode: Token ids to text.
        batch_size: How many samples are scored at once.
        precision: Dtype of the matrix products, as in training.
        slices: How a batch is cut among processes, which then all score the same samples; None for one process.
    """

    def __init__(
        self,
        model: Decoder,
        samples: Samples,
        decode: Callable[[list[int]], str],
        *,
        batch_size: int,
        precision: torch.dtype,
        slices: Slices | None = None,
    ) -> None:
        self.batch_size = batch_size
        self._slices = slices or Whole()
        self._model = model
        self._samples = samples
        self._decode = decode
        self._precision = precision
        self._texts: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._samples)

    def score(self, ids: Ids, *, tokens: bool = False) -> Scores:
        """Score the samples of these ids [B]: losses, margins, and the mean of the last hidden states as embedding."""
        batch = self._samples.batch(ids)
        losses, margins, embedding = self._measured(ids)
        here = batch.targets != IGNORED
        return Scores(
            _means(losses, here),
            _means(margins, here),
            embedding,
            [[self._text(token) for token in row[kept]] for row, kept in zip(batch.targets, here, strict=True)]
            if tokens
            else (),
            [row[kept] for row, kept in zip(losses, here, strict=True)] if tokens else (),
        )

    def fields(self, ids: Ids) -> list[Mapping[str, Any]]:
        """Return of each sample its ``number``, its ``text`` and its ``length``, which is that of its targets."""
        batch = self._samples.batch(ids)
        found: list[Mapping[str, Any]] = []
        for number, inputs, targets in zip(ids, batch.inputs, batch.targets, strict=True):
            kept = targets[targets != IGNORED].tolist()
            text = self._decode([int(inputs[0]), *kept])
            found.append({"number": int(number), "text": text, "length": len(kept)})
        return found

    @torch.no_grad()
    def _measured(self, ids: Ids) -> tuple[_Numbers, _Numbers, _Numbers]:
        """Losses and margins [B, T], and embeddings [B, C], all float32."""
        device = self._model.embed.weight.device
        batch = self._slices.batch(self._samples, ids)
        inputs, targets = (torch.from_numpy(part).to(device) for part in (batch.inputs, batch.targets))
        was_training = self._model.training
        self._model.eval()
        with torch.autocast(device.type, dtype=self._precision, enabled=self._precision != torch.float32):
            logits, hidden = self._looked(inputs)
        self._model.train(was_training)
        self._slices.rest(self._model)
        found = (*token_scores(logits, targets), mean_hidden(hidden, targets != IGNORED))
        losses, margins, embedding = (self._slices.rows(part, len(ids)).cpu().numpy() for part in found)
        return losses, margins, embedding

    def _looked(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B, T, V] and last hidden states [B, T, C], whole.

        The model is called as in training, since what splits it hangs on that; the head is given the hidden states.
        """
        given: list[Tensor] = []
        hook = self._model.head.register_forward_pre_hook(lambda _head, states: given.append(states[0]))
        try:
            logits = self._model(inputs)
        finally:
            hook.remove()
        whole = dict(self._slices.whole((("logits", logits), ("hidden", given[0]))))
        return whole["logits"], whole["hidden"]

    def _text(self, token: int) -> str:
        if token not in self._texts:
            self._texts[int(token)] = self._decode([int(token)])
        return self._texts[int(token)]


def token_scores(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return the loss and the margin of each target.

    Args:
        logits: [B, T, V].
        targets: [B, T] int64, `IGNORED` where there is none.

    Returns:
        [B, T] float32 each, in nats: the cross-entropy; and the log-probability of the right token less that of the
        best wrong one. Both are 0 where there is no target.
    """
    logits, here = logits.float(), targets != IGNORED
    loss = F.cross_entropy(logits.transpose(1, 2), targets, ignore_index=IGNORED, reduction="none")
    places = targets.clamp(min=0).unsqueeze(-1)
    right = logits.gather(-1, places).squeeze(-1)
    wrong = logits.scatter(-1, places, -torch.inf).amax(-1)
    return loss, torch.where(here, right - wrong, 0.0)


def mean_hidden(hidden: Tensor, here: Tensor) -> Tensor:
    """Return the mean [B, C] float32 of hidden states [B, T, C] over the positions that count, [B, T] bool."""
    weights = here.float().unsqueeze(-1)
    return (hidden.float() * weights).sum(1) / weights.sum(1).clamp(min=1)


def _means(values: _Numbers, here: npt.NDArray[np.bool_]) -> _Means:
    """The mean [B] of values [B, T] over those that count; NaN where none does."""
    counts = here.sum(1)
    found: _Means = np.full(len(counts), np.nan)
    np.divide(np.where(here, values, 0).sum(1, dtype=np.float64), counts, out=found, where=counts > 0)
    return found
