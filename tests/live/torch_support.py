"""Small PyTorch programs of several kinds, and runs of them in this process."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from clew.live.script import Origin
from clew.runs import Run

COUNT = 40


@dataclass
class Program:
    """What trains, freshly made."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: Any
    data: TensorDataset
    loss_fn: Callable[..., Tensor]

    @property
    def words(self) -> dict[str, Any]:
        """What a session is told of it."""
        return {
            "model": self.model,
            "optimizer": self.optimizer,
            "scheduler": self.scheduler,
            "data": self.data,
            "loss_fn": self.loss_fn,
            "batch_size": 8,
        }

    def update(self, batch: Any) -> Tensor:
        """Make an optimizer step, and return its loss."""
        inputs, targets = batch
        loss = self.loss_fn(self.model(inputs), targets)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        if self.scheduler is not None:
            self.scheduler.step()
        return loss


def mlp() -> Program:
    """Two layers on points, with momentum and a schedule."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20)
    points = torch.randn(COUNT, 3)
    return Program(model, optimizer, scheduler, TensorDataset(points, (points.sum(1) > 0).long()), F.cross_entropy)


def cnn() -> Program:
    """A convolution with batch norm (an integer buffer) and dropout (random numbers), on images."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3), nn.Linear(64, 3)
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    data = TensorDataset(torch.randn(COUNT, 1, 4, 4), torch.arange(COUNT) % 3)
    return Program(model, optimizer, None, data, nn.CrossEntropyLoss())


class TinyDecoder(nn.Module):
    """One attention layer whose head is tied to its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
        self.head = nn.Linear(8, 7, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, T] int64 to logits [B, T, 7]."""
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1])
        logits: Tensor = self.head(self.layer(self.embed(tokens), mask, is_causal=True))
        return logits


def token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """The mean cross-entropy of tokens, which says nothing of single samples."""
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def decoder() -> Program:
    """A decoder on sequences of tokens, with two groups of parameters."""
    torch.manual_seed(0)
    model = TinyDecoder()
    matrices = [one for one in model.parameters() if one.ndim > 1]
    rest = [one for one in model.parameters() if one.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0, "lr": 0.005}]
    optimizer = torch.optim.AdamW(groups, lr=0.01)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, [0.01, 0.005], total_steps=40)
    tokens = torch.randint(0, 7, (COUNT, 6))
    return Program(model, optimizer, scheduler, TensorDataset(tokens[:, :-1], tokens[:, 1:]), token_loss)


PROGRAMS = {"mlp": mlp, "cnn": cnn, "decoder": decoder}


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sessions of the test are those of somebody who types, in a workspace of their own, which is returned."""
    monkeypatch.setattr(Origin, "of_process", classmethod(lambda cls: cls(None, folder=str(tmp_path))))
    monkeypatch.setenv("CLEW_WORKSPACE", str(tmp_path))
    return tmp_path


def apart(body: Callable[[], Any]) -> Any:
    """Call something as a process of its own would: what sessions there were, it does not know."""
    return contextvars.copy_context().run(body)


def curve(run: Run, name: str = "loss") -> dict[int, float]:
    """What a run has logged of a metric, by step."""
    return {event["step"]: float(event["values"][name]) for event in run.events("metric") if name in event["values"]}


def weights(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, copied."""
    return {name: one.detach().clone() for name, one in model.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether weights are the same, bit by bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
