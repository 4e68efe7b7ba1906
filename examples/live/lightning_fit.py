"""A Lightning module as a live run: two lines around ``fit``.

    python lightning_fit.py        # makes the run "rings", or goes on with it
    clew pause rings --wait        # from another terminal, while it trains

Then ``clew set rings lr=0.003``, ``clew evaluate rings``, ``clew fork rings``, ``clew resume rings``, ...
"""

from __future__ import annotations

import math

import lightning
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import clew


class Rings(lightning.LightningModule):
    """Tells by a point in which of two rings it lies."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 2))

    def training_step(self, batch, batch_idx):
        loss = functional.cross_entropy(self.layers(batch[0]), batch[1])
        self.log("loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        outputs = self.layers(batch[0])
        self.log("val_loss", functional.cross_entropy(outputs, batch[1]))
        self.log("val_accuracy", (outputs.argmax(-1) == batch[1]).float().mean())

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.01)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 300)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def rings(count, seed):
    """Points [count, 2], and the ring of each."""
    generator = torch.Generator().manual_seed(seed)
    ring = torch.randint(0, 2, (count,), generator=generator)
    angle = torch.rand(count, generator=generator) * 2 * math.pi
    radius = 1 + ring + 0.4 * torch.randn(count, generator=generator)
    return TensorDataset(torch.stack([radius * angle.cos(), radius * angle.sin()], 1), ring)


torch.manual_seed(0)
trainer = lightning.Trainer(
    accelerator="cpu", max_steps=300, log_every_n_steps=10, logger=False, enable_checkpointing=False
)
training = DataLoader(rings(1000, 1), batch_size=32, shuffle=True)
validation = DataLoader(rings(200, 2), batch_size=100)

with clew.attach_lightning(trainer, name="rings", checkpoint=50):
    trainer.fit(Rings(), training, validation)
