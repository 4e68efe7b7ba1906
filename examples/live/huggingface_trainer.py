"""A Hugging Face trainer as a run: `python examples/live/huggingface_trainer.py`; elsewhere, say, `clew pause sums`.

Two lines are Clew's: the import, and the callback. With a trainer of TRL it is the same. While it runs, try:

    clew set sums lr=0.001 batch_size=64
    clew evaluate sums --wait
    clew select sums "hardest 30%" --wait
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Trainer, TrainingArguments, set_seed

import clew


class Adder(nn.Module):
    """Reads the digits of two numbers below 100, and says their sum, which is one of 199."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(40, 128), nn.ReLU(), nn.Linear(128, 199))

    def forward(self, digits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return what a Hugging Face trainer takes from a model."""
        logits = self.layers(F.one_hot(digits, 10).float().flatten(1))
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}


def sums(first: int, last: int) -> list[dict[str, Tensor]]:
    """Some of the ten thousand sums, in a mixed order."""
    pairs = torch.cartesian_prod(torch.arange(100), torch.arange(100))
    chosen = pairs[torch.randperm(len(pairs), generator=torch.Generator().manual_seed(0))][first:last]
    return [{"digits": torch.stack((a // 10, a % 10, b // 10, b % 10)), "labels": a + b} for a, b in chosen]


set_seed(0)
trainer = Trainer(
    model=Adder(),
    args=TrainingArguments(
        "adder",
        max_steps=300,
        per_device_train_batch_size=128,
        learning_rate=0.01,
        eval_strategy="steps",
        eval_steps=100,
        save_steps=100,
        logging_steps=10,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    ),
    train_dataset=sums(0, 9000),
    eval_dataset=sums(9000, 10000),
)
trainer.add_callback(clew.callback(trainer, name="sums"))
trainer.train()
print(f"loss on sums that it has not seen: {trainer.evaluate()['eval_loss']:.3f}")
