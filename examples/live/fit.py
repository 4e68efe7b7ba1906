"""A convolutional network in one call: `python examples/live/fit.py`, and from another terminal `clew pause cnn`.

Batch norm, dropout, a schedule, clipping, validations and a test; everything that can be asked of a run can be asked of
this one.
"""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset, random_split

import clew


def accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """How many are right."""
    return (outputs.argmax(1) == targets).float().mean()


torch.manual_seed(0)
pixels, digits = (torch.from_numpy(part) for part in load_digits(return_X_y=True))
images = TensorDataset(pixels.float().view(-1, 1, 8, 8) / 16, digits)
train, validation, test = random_split(images, [1297, 250, 250])

model = nn.Sequential(
    nn.Conv2d(1, 16, 3, padding=1),
    nn.BatchNorm2d(16),
    nn.ReLU(),
    nn.MaxPool2d(2),
    nn.Conv2d(16, 32, 3, padding=1),
    nn.ReLU(),
    nn.Flatten(),
    nn.Dropout(0.2),
    nn.Linear(32 * 4 * 4, 10),
)
optimizer = torch.optim.AdamW(model.parameters(), lr=0.003)

fitted = clew.Trainer(project="cnn", max_grad_norm=1.0, metrics={"accuracy": accuracy}, log_every=20).fit(
    model,
    optimizer,
    nn.CrossEntropyLoss(),
    DataLoader(train, batch_size=64, shuffle=True),
    DataLoader(validation, batch_size=250),
    DataLoader(test, batch_size=250),
    epochs=6,
    scheduler=torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 122),
)
print({name: round(value, 3) for name, value in sorted(fitted.metrics.items())})
