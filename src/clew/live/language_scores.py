"""How well a causal language model knows single examples: loss, margin and embedding, token by token if wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from clew.data.order import Ids
from clew.inspection.samples import Scores

_IGNORED = -100
_BATCH = 64


class Tokens(NamedTuple):
    """An example as it is trained on: token ids, and a label for each, the id itself or -100."""

    ids: Sequence[int]
    labels: Sequence[int]


class Rows(Protocol):
    """The examples of a split."""

    def __len__(self) -> int:
        """Return their number."""
        ...

    def tokens(self, ids: Ids) -> list[Tokens]:
        """Return the examples of these numbers; raises UserError where there is nothing to score."""
        ...

    def fields(self, ids: Ids) -> list[Mapping[str, Any]]:
        """Return what is known of them: at least ``text`` and ``length``."""
        ...


class LanguageScorer:
    """Scores examples with a model's present weights; see :class:`clew.inspection.samples.Scorer`.

    Args:
        model: A causal language model of Transformers; it is left as it was found.
        tokenizer: Its tokenizer.
        rows: What is scored.
        size: Examples in one forward pass.
        precision: Surrounds a forward pass, as in the training.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        rows: Rows,
        *,
        size: int,
        precision: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._rows = rows
        self._size = size
        self._precision = precision
        self.batch_size = max(size, _BATCH)

    def __len__(self) -> int:
        return len(self._rows)

    def score(self, ids: Ids, *, tokens: bool = False) -> Scores:
        """Score the samples of these ids [B]."""
        rows = self._rows.tokens(ids)
        found = []
        with torch.no_grad(), _evaluating(self._model):
            for start in range(0, len(rows), self._size):
                found += self._passed(rows[start : start + self._size])
        return Scores(
            loss=np.array([_mean(one.losses) for one in found]),
            margin=np.array([_mean(one.margins) for one in found]),
            embedding=np.stack([one.embedding for one in found]) if found else np.zeros((0, 0), np.float32),
            tokens=[self._texts(row) for row in rows] if tokens else (),
            token_losses=[one.losses for one in found] if tokens else (),
        )

    def fields(self, ids: Ids) -> list[Mapping[str, Any]]:
        """Return what is known of these samples."""
        return self._rows.fields(ids)

    def _passed(self, rows: Sequence[Tokens]) -> list[_Scored]:
        """Score what goes through the model at once, and fetch it in one transfer."""
        batch = _padded(rows, self._tokenizer.pad_token_id or 0)
        inputs = {name: batch[name].to(self._model.device) for name in ("input_ids", "attention_mask")}
        with self._precision(), _last_hidden(self._model) as hidden:
            logits = self._model(**inputs, use_cache=False).logits
        targets = batch["labels"][:, 1:]
        trained = targets != _IGNORED
        right = targets[trained].to(logits.device)[:, None]
        chosen = logits[:, :-1][trained.to(logits.device)].float()
        own = chosen.gather(1, right)[:, 0]
        margins = own - chosen.scatter(1, right, -torch.inf).amax(1)
        mask = inputs["attention_mask"][..., None]
        means = (hidden[0].float() * mask).sum(1) / mask.sum(1)
        parts = [chosen.logsumexp(1) - own, margins, means.reshape(-1)]
        flat = torch.cat(parts).cpu().numpy().astype(np.float32)
        ends = np.cumsum(trained.sum(1).numpy())[:-1]
        count = len(own)
        losses, found = np.split(flat[:count], ends), np.split(flat[count : 2 * count], ends)
        embeddings = flat[2 * count :].reshape(len(rows), -1)
        return [_Scored(*one) for one in zip(losses, found, embeddings, strict=True)]

    def _texts(self, row: Tokens) -> list[str]:
        targets = [label for label in row.labels[1:] if label != _IGNORED]
        return [str(self._tokenizer.decode([label])) for label in targets]


def likelihoods(model: Any, rows: Sequence[Tokens]) -> Iterator[Callable[[], Tensor]]:
    """Yield what computes the log-likelihood of each example, a sum over its trained tokens."""
    for row in rows:

        def likelihood(row: Tokens = row) -> Tensor:
            ids, labels = (torch.tensor([part], device=model.device) for part in row)
            logits = model(input_ids=ids, use_cache=False).logits[0, :-1].float()
            return -torch.nn.functional.cross_entropy(logits, labels[0, 1:], ignore_index=_IGNORED, reduction="sum")

        yield likelihood


class _Scored(NamedTuple):
    losses: np.ndarray[Any, np.dtype[np.float32]]
    margins: np.ndarray[Any, np.dtype[np.float32]]
    embedding: np.ndarray[Any, np.dtype[np.float32]]


def _mean(values: np.ndarray[Any, np.dtype[np.float32]]) -> float:
    return float(values.mean(dtype=np.float64)) if len(values) else float("nan")


def _padded(rows: Sequence[Tokens], pad: int) -> dict[str, Tensor]:
    """Examples as tensors [B, T], filled up on the right."""
    length = max(len(row.ids) for row in rows)
    filled = {"input_ids": pad, "labels": _IGNORED, "attention_mask": 0}
    batch = {name: torch.full((len(rows), length), value) for name, value in filled.items()}
    for place, row in enumerate(rows):
        for name, values in (("input_ids", row.ids), ("labels", row.labels), ("attention_mask", [1] * len(row.ids))):
            batch[name][place, : len(values)] = torch.tensor(values)
    return batch


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """Switch dropout off for a while."""
    modes = {part: part.training for part in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


@contextmanager
def _last_hidden(model: Any) -> Iterator[list[Tensor]]:
    """Give what goes into the output layer, [B, T, D], of each forward pass in the body."""
    seen: list[Tensor] = []
    hook = model.get_output_embeddings().register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    try:
        yield seen
    finally:
        hook.remove()
