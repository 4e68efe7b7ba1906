"""How well a Lightning module knows single samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, default_collate

from clew.data.order import Ids
from clew.errors import UserError
from clew.inspection.samples import Scores
from clew.live.lightning_undisturbed import looking, to_device, training_loss

Losses = Callable[[Any, Any], Tensor]
"""From a module and a batch on its device to the loss [B] of each sample."""


class SampleScorer:
    """Scores the samples of a loader with the weights of the moment; a :class:`clew.inspection.samples.Scorer`.

    Args:
        trainer: A trainer that fits.
        loader: Whose samples.
        losses: Gives the loss of each sample of a batch. Without it, the training step is called for each sample alone,
            in evaluation mode: that fits every module, and is slow.
    """

    def __init__(self, trainer: Any, loader: DataLoader[Any], losses: Losses | None) -> None:
        self.batch_size = max(1, loader.batch_size or 1)
        self._trainer = trainer
        self._data: Any = loader.dataset
        self._collate = loader.collate_fn if loader.batch_size else default_collate
        self._losses = losses

    def __len__(self) -> int:
        return len(self._data)

    def score(self, ids: Ids, *, tokens: bool = False) -> Scores:
        """Return the losses of samples; what their tokens are, a module does not say."""
        samples = [self._data[int(number)] for number in ids]
        with looking(self._trainer):
            loss = self._together(samples) if self._losses else self._alone(samples)
        return Scores(loss.to(torch.float64).cpu().numpy())

    def fields(self, ids: Ids) -> list[Mapping[str, Any]]:
        """Return of each sample its ``number``, its ``text`` if it has one, its ``length``, and fields of its own."""
        return [fields_of(int(number), self._data[int(number)]) for number in ids]

    def _together(self, samples: list[Any]) -> Tensor:
        assert self._losses is not None
        losses = self._losses(self._trainer.lightning_module, to_device(self._trainer, self._collate(samples)))
        if losses.shape != (len(samples),):
            raise UserError(f"losses must give {len(samples)} numbers for so many samples, not {tuple(losses.shape)}")
        return losses

    def _alone(self, samples: list[Any]) -> Tensor:
        trainer = self._trainer
        return torch.stack(
            [training_loss(trainer, to_device(trainer, self._collate([sample]))).reshape(()) for sample in samples]
        )


def fields_of(number: int, sample: Any) -> dict[str, Any]:
    """Return what is known of a sample: its number, text and length, and what it has of single values.

    The parts of a pair are called ``input`` and ``label``, those of other tuples ``part0`` and so on.
    """
    values = {name: _single(part) for name, part in _parts(sample).items()}
    texts = [value for value in values.values() if isinstance(value, str)]
    lengths = [_length(part) for part in _parts(sample).values()]
    known = {name: value for name, value in values.items() if value is not None}
    return {"number": number, "text": texts[0] if texts else "", "length": lengths[0] if lengths else 0, **known}


def _parts(sample: Any) -> dict[str, Any]:
    if isinstance(sample, Mapping):
        return {str(name): part for name, part in sample.items()}
    if not isinstance(sample, tuple | list):
        return {"input": sample}
    names = ("input", "label") if len(sample) == len(("input", "label")) else ()
    return {names[place] if names else f"part{place}": part for place, part in enumerate(sample)}


def _single(part: Any) -> Any:
    """A part that is one value, as JSON; None for others."""
    if isinstance(part, Tensor | np.ndarray | np.generic):
        return part.item() if part.ndim == 0 else None
    return part if isinstance(part, str | int | float) else None


def _length(part: Any) -> int:
    """How many entries a part has: tokens, letters, rows; 1 for a single value."""
    if isinstance(part, Tensor | np.ndarray):
        return int(part.shape[0]) if part.ndim else 1
    return len(part) if isinstance(part, str | tuple | list) else 1
