"""How long a training is held up when its state is kept to be written while it goes on, as a fork does."""

from __future__ import annotations

import statistics
import time

import numpy as np
import torch
from common import Figure, alternate
from waiting import Waiting

from clew.data.packing import Windows
from clew.models.config import ModelConfig
from clew.models.decoder import Decoder
from clew.train.config import TrainingConfig
from clew.train.loop import Trainer

VOCAB, SEQ_LEN, ROUNDS = 258, 32, 9


def main() -> None:
    """Print the pause, and what it costs to copy everything at once."""
    torch.set_num_threads(1)
    tokens = np.random.default_rng(0).integers(0, VOCAB, 10_000).astype(np.uint16)
    model = Decoder(ModelConfig(depth=12, width=816), VOCAB, SEQ_LEN)
    config = TrainingConfig(batch_size=4)
    trainer = Trainer(model, Windows(tokens, SEQ_LEN), config, lr=1e-4, total_steps=10**6, seed=0)
    trainer.step()
    size = 3 * 4 * sum(parameter.numel() for parameter in model.parameters()) / 1e9
    waiting, pauses = Waiting(trainer), []

    def keeping() -> None:
        waiting.seconds, began = 0.0, time.perf_counter()
        kept = trainer.snapshot()
        pauses.append(time.perf_counter() - began)
        trainer.step()
        pauses[-1] += waiting.seconds
        del kept

    plain, kept = alternate(ROUNDS, trainer.step, keeping)
    Figure(f"keeping a state of {size:.2g} GB: the training waits", 1e3 * statistics.median(pauses), "ms", 100).print()
    Figure("a step beside the copying, against another", kept / plain, "x").print()


if __name__ == "__main__":
    main()
