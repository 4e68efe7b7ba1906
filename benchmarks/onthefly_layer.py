"""What a step pays for onthefly-ai; ``live_layer.py`` runs this in an environment that has it.

The same training goes on in one process, some steps in its ``Trainer`` and as many in a plain loop, in turn.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
from contextlib import redirect_stdout

import torch
from onthefly import Trainer
from plain_loop import Clocked, Training

STEPS, PAIRS = 100, 12


def main() -> None:
    """Print how much longer a step takes."""
    torch.set_num_threads(1)
    training, extra = Training(), []
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(sys.stderr):
        os.chdir(folder)
        for pair in range(-2, PAIRS):  # the first two warm up
            found = {}
            for is_live in ((False, True), (True, False))[pair % 2]:
                batches = Clocked(STEPS)
                _with_it(training, batches) if is_live else _without(training, batches)
                found[is_live] = statistics.mean(batches.seconds()[:STEPS])
            if pair >= 0:
                extra.append(found[True] / found[False] - 1)
    print(json.dumps({"extra": statistics.median(extra)}))


def _without(training: Training, batches: Clocked) -> None:
    for batch in batches:
        training.step(batch)


def _with_it(training: Training, batches: Clocked) -> None:
    """What its page says for a plain model; nobody has a dashboard open."""
    trainer = Trainer(project="bench", run_name="bench", max_epochs=1, val_every_n_epochs=0)
    trainer.fit(
        model=training.model, optimizer=training.optimizer, loss_fn=training.loss_fn, train_loader=batches, device="cpu"
    )
    trainer.close()


if __name__ == "__main__":
    main()
