"""A plain PyTorch loop of some 5 ms a step on one thread, by which live layers are measured; needs PyTorch only.

The time of a step is taken from one batch to the next, so it holds whatever a layer does in between.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

BATCH, LENGTH, WORDS, CLASSES = 16, 32, 256, 8


class Classifier(nn.Module):
    """A small transformer that says of what kind a text is."""

    def __init__(self, width: int = 64, layers: int = 1) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, width)
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, batch_first=True)
        self.body = nn.TransformerEncoder(layer, layers)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits ``[batch, classes]`` for tokens ``[batch, length]``."""
        return self.head(self.body(self.embed(tokens)).mean(dim=1))


class Clocked:
    """Batches, with the time at which each was handed out."""

    def __init__(self, batches: int) -> None:
        tokens = torch.randint(WORDS, (BATCH * batches, LENGTH))
        self.dataset = TensorDataset(tokens, tokens[:, 0] % CLASSES)
        self.times: list[float] = []

    def __iter__(self) -> Iterator[list[Tensor]]:
        for batch in DataLoader(self.dataset, batch_size=BATCH):
            self.times.append(time.perf_counter())
            yield batch
        self.times.append(time.perf_counter())

    def seconds(self) -> list[float]:
        """Return what each step took, and forget it."""
        times, self.times = self.times, []
        return [after - before for before, after in pairwise(times)]


class Training:
    """A model with its optimizer."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = Classifier()
        self.loss_fn = nn.CrossEntropyLoss()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3)

    def step(self, batch: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Make one step, and return loss and gradient norm."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss_fn(self.model(batch[0]), batch[1])
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return loss.detach(), norm
