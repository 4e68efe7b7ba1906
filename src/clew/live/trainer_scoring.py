"""What scores the samples of a Hugging Face ``Trainer``: by their tokens for a language model, else as a whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from clew.data.order import permute
from clew.errors import UserError
from clew.inspection.samples import Scorer
from clew.live.language_rows import PreparedRows
from clew.live.language_scores import LanguageScorer, Rows, Tokens, likelihoods
from clew.live.torch_data import Samples
from clew.live.torch_scoring import Judged, TorchScorer
from clew.live.trainer_feed import source

if TYPE_CHECKING:
    from transformers import Trainer

    from clew.merging.methods.fisher import Fisher


def scorer_of(trainer: Trainer, split: str, rows: Callable[[str], Rows] | None) -> Scorer:
    """Return what scores a split.

    Args:
        trainer: The trainer.
        split: ``train``, ``validation`` or whatever ``rows`` knows.
        rows: Returns the examples of a split; None takes the trainer's data sets.

    Raises:
        UserError: If there is no such split.
    """
    size, around = int(trainer.args.per_device_eval_batch_size), trainer.compute_loss_context_manager
    if _speaks(trainer):
        found = _rows(trainer, split, rows)
        return LanguageScorer(trainer.model, _tokenizer(trainer), found, size=size, precision=around)
    data = _data(trainer, split)
    fetch, collate = source(trainer, data)
    return TorchScorer(
        trainer.model,
        Samples(len(data), lambda ids: collate(fetch(ids)), lambda number: data[number]),
        lambda batch: _judged(trainer, batch),
        batch_size=size,
        device=trainer.args.device,
        around=around,
    )


def likelihoods_of(
    trainer: Trainer, rows: Callable[[str], Rows] | None, method: Fisher, seed: int
) -> Iterator[Callable[[], Tensor]]:
    """Yield what computes the log-likelihood of single examples, or a loss that stands for it.

    Args:
        trainer: The trainer.
        rows: As in :func:`scorer_of`.
        method: Says how many, and of which split.
        seed: Chooses them.
    """
    speaks = _speaks(trainer)
    data = _rows(trainer, method.split, rows) if speaks else _data(trainer, method.split)
    ids = permute(np.arange(min(method.samples, len(data))), len(data), seed=seed, epoch=0)
    if speaks:
        cut = [Tokens(one.ids[: method.max_length], one.labels[: method.max_length]) for one in data.tokens(ids)]
        yield from likelihoods(trainer.model, cut)
        return
    fetch, collate = source(trainer, data)
    for number in ids:
        batch = trainer._prepare_input(collate(fetch(np.array([number]))))
        yield partial(trainer.compute_loss, trainer.model, batch)


def _rows(trainer: Trainer, split: str, rows: Callable[[str], Rows] | None) -> Rows:
    return rows(split) if rows is not None else PreparedRows(_data(trainer, split), _tokenizer(trainer))


def _data(trainer: Trainer, split: str) -> Any:
    """A data set of the trainer."""
    found = {"train": trainer.train_dataset, "validation": trainer.eval_dataset}.get(split)
    if found is None or isinstance(found, dict):
        raise UserError(f"this trainer has no {split} data", hint="ask for train or validation")
    return found


def _tokenizer(trainer: Trainer) -> Any:
    """The tokenizer, which stands inside of a processor for models that see more than text; None without one."""
    return getattr(trainer.processing_class, "tokenizer", trainer.processing_class)


def _speaks(trainer: Trainer) -> bool:
    """Whether a model that predicts tokens is trained, and there is what tells which they are."""
    output = getattr(trainer.model, "get_output_embeddings", None)
    return _tokenizer(trainer) is not None and output is not None and output() is not None


def _judged(trainer: Trainer, batch: Mapping[str, Any]) -> Judged:
    """The trainer's own loss of each sample alone; and last what the model makes of all of them together."""
    model, labels = trainer.model, batch.get("labels")
    losses = torch.stack([trainer.compute_loss(model, row).reshape(()) for row in _apart(batch)])
    outputs = model(**batch)
    logits = outputs.get("logits") if isinstance(outputs, Mapping) else None
    return Judged(losses, logits, labels)


def _apart(batch: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for place in range(len(next(iter(batch.values())))):
        yield {name: part[place : place + 1] for name, part in batch.items()}
