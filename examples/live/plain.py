"""A plain PyTorch loop as a run: `python examples/live/plain.py`, and from another terminal `clew pause digits`.

Five lines are Clew's: the import, the session, the batches, and the step with its log. While it runs, try:

    clew set digits lr=0.02
    clew evaluate digits --wait
    clew select digits "hardest 30%" --wait
    clew fork digits --name digits-slow params.lr=0.01
"""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

import clew

torch.manual_seed(0)
pixels, digits = (torch.from_numpy(part) for part in load_digits(return_X_y=True))
train = TensorDataset(pixels[:1500].float() / 16, digits[:1500])
held_out = pixels[1500:].float() / 16, digits[1500:]

model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def accuracy() -> dict[str, float]:
    """How many of the held-out digits are read right."""
    return {"accuracy": (model(held_out[0]).argmax(1) == held_out[1]).float().mean().item()}


with clew.session(
    "digits",
    params={"lr": 0.1, "batch_size": 32, "steps": 400},
    model=model,
    optimizer=optimizer,
    data=train,
    validation=held_out,
    batch_size=32,
    steps=400,
    loss_fn=F.cross_entropy,
    evaluate=accuracy,
) as live:
    for inputs, targets in live.batches():
        loss = F.cross_entropy(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        live.step(loss=loss)
    print(live.evaluate())
