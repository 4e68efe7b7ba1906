"""An Accelerate loop as a run: `python examples/live/accelerate_loop.py`; elsewhere, say, `clew pause spirals`.

What `accelerator.prepare` gives is handed to the session as it is. One process: a session steers no other ranks.
"""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import clew


def spirals(count: int) -> TensorDataset:
    """Two spirals, one inside the other, and which one a point lies on."""
    turn = torch.linspace(0.5, 3.5, count).repeat(2) * torch.pi
    side = torch.arange(2).repeat_interleave(count)
    angle = turn + side * torch.pi
    points = torch.stack((angle.cos(), angle.sin()), 1) * turn[:, None] / 10
    return TensorDataset(points, side)


torch.manual_seed(0)
accelerator = Accelerator(cpu=True)
model = nn.Sequential(nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 2))
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 300)
loader = DataLoader(spirals(500), batch_size=50, shuffle=True)
model, optimizer, schedule, loader = accelerator.prepare(model, optimizer, schedule, loader)
loss_fn = nn.CrossEntropyLoss()

with clew.session(
    "spirals",
    model=model,
    optimizer=optimizer,
    scheduler=schedule,
    data=loader,
    steps=300,
    max_grad_norm=1.0,
    loss_fn=loss_fn,
) as live:
    for inputs, targets in live.batches():
        loss = loss_fn(model(inputs.to(accelerator.device)), targets.to(accelerator.device))
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(model.parameters(), live.max_grad_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        live.step(loss=loss)

points, side = spirals(200).tensors
print(f"accuracy {(model(points).argmax(1) == side).float().mean():.3f}")
