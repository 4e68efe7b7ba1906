"""Samples as a live run speaks of them: which ones to train on, and how well the model knows each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Ids = npt.NDArray[np.int64]
    Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Part:
    """Some samples, and how often they come.

    Attributes:
        ids: Sample numbers [n] int64, each once; in the order in which they come where the order is not shuffled.
        share: Of all that is drawn; the shares of a selection are positive, and only their ratios count.
    """

    ids: Ids
    share: float = 1.0


@dataclass(frozen=True)
class Selection:
    """What a run trains on: one part of the data, or a mixture of several.

    Attributes:
        parts: At least one, none of them empty.
        recipe: What was asked for, as JSON.
        shuffled: Whether each epoch has another order; else the ids come as they stand.
    """

    parts: tuple[Part, ...]
    recipe: Mapping[str, Any] = field(default_factory=dict)
    shuffled: bool = True

    @property
    def size(self) -> int:
        """The number of samples in all parts."""
        return sum(len(part.ids) for part in self.parts)


@dataclass(frozen=True)
class Scores:
    """How well a model knows some samples, one entry for each of them.

    Attributes:
        loss: [B] float64: the mean cross-entropy of the sample's targets, in nats; NaN where it has none.
        margin: [B] float64: the mean over its targets of the log-probability of the right token less that of the best
            wrong one, in nats; NaN where it has none. None where the trainer has no such thing.
        embedding: [B, D] float32: the mean hidden state of the sample. None where the trainer has no such thing.
        tokens: For each sample its targets as text. Empty unless tokens were asked for.
        token_losses: For each sample the loss of each target [T] float32. Empty unless tokens were asked for.
    """

    loss: Floats
    margin: Floats | None = None
    embedding: npt.NDArray[np.float32] | None = None
    tokens: Sequence[Sequence[str]] = ()
    token_losses: Sequence[npt.NDArray[np.float32]] = ()


class Scorer(Protocol):
    """Looks at single samples with the weights of the moment; draws nothing at random and changes nothing."""

    batch_size: int
    """How many samples are best scored at once."""

    def __len__(self) -> int:
        """Return the number of samples of the split."""
        ...

    def score(self, ids: Ids, *, tokens: bool = False) -> Scores:
        """Score the samples of these ids [B], in this order.

        Args:
            ids: Sample numbers.
            tokens: Whether the single tokens are wanted, too.
        """
        ...

    def fields(self, ids: Ids) -> list[Mapping[str, Any]]:
        """Return what is known of these samples: at least ``text`` and ``length``, and what the data has besides."""
        ...
