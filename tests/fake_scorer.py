"""A scorer without a model, for tests of everything that looks at samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from clew.inspection import Scores


class FakeScorer:
    """Knows its samples by heart.

    Args:
        loss: One for each sample.
        margin: The same; None gives none.
        embedding: Rows; None gives none.
        rows: Fields of each sample beside ``text`` and ``length``.
        batch_size: Samples that are scored at once.
    """

    def __init__(
        self,
        loss: Sequence[float],
        margin: Sequence[float] | None = None,
        embedding: Sequence[Sequence[float]] | None = None,
        rows: Sequence[Mapping[str, Any]] | None = None,
        batch_size: int = 3,
    ) -> None:
        self.loss = np.array(loss, dtype=np.float64)
        self.margin = None if margin is None else np.array(margin, dtype=np.float64)
        self.embedding = None if embedding is None else np.array(embedding, dtype=np.float32)
        self.rows = rows or [{} for _ in loss]
        self.batch_size = batch_size
        self.scored: list[int] = []

    def __len__(self) -> int:
        return len(self.loss)

    def score(self, ids: np.ndarray, *, tokens: bool = False) -> Scores:
        self.scored += ids.tolist()
        return Scores(
            self.loss[ids],
            None if self.margin is None else self.margin[ids],
            None if self.embedding is None else self.embedding[ids],
            [self.targets(number) for number in ids] if tokens else (),
            [self.token_losses(number) for number in ids] if tokens else (),
        )

    def fields(self, ids: np.ndarray) -> list[Mapping[str, Any]]:
        return [{"text": self.text(number), "length": 10 + int(number), **self.rows[number]} for number in ids]

    def text(self, number: int) -> str:
        return f"What is {number}? It is {number}."

    def targets(self, number: int) -> list[str]:
        return [" It", " is", f" {number}", "."]

    def token_losses(self, number: int) -> np.ndarray:
        return np.array([0, 0.25, 4, 0.5], dtype=np.float32) * np.float32(self.loss[number])
