"""Lightning's ``fit`` as a live run against the same ``fit`` without one, turn by turn.

Twice: with batches that are ready, which leaves nothing but the live layer; and with a shuffled loader of a tensor data
set, of which a live run cuts its batches at once, where PyTorch's loader collects samples.
"""

from __future__ import annotations

import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning
import torch
from common import Figure
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from clew.live.lightning import attach
from clew.runs import Owner, Run, RunInfo, State, create_run
from clew.session import CheckpointConfig, Session

STEPS, PAIRS, BATCH, WIDTH, LAYERS = 200, 9, 64, 320, 6
PROMISE = 1.02
Spent = tuple[float, float]


class Wide(lightning.LightningModule):
    """A module whose step takes about five milliseconds on one thread."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        inner = [part for _ in range(LAYERS) for part in (nn.Linear(WIDTH, WIDTH), nn.ReLU())]
        self.layers = nn.Sequential(nn.Linear(32, WIDTH), *inner, nn.Linear(WIDTH, 8))

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        loss = functional.cross_entropy(self.layers(batch[0]), batch[1])
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-4)


class Clock(lightning.Callback):
    """Takes the time of the steps but for the first ones: of the wall, and of the processor in all threads."""

    def __init__(self) -> None:
        self.spent = (0.0, 0.0)
        self._began = (0.0, 0.0)

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        """Begin after the first steps."""
        if trainer.global_step == STEPS // 10:
            self._began = (time.perf_counter(), time.process_time())

    def on_train_end(self, trainer: Any, module: Any) -> None:
        """End with the last one."""
        now, (wall, processor) = (time.perf_counter(), time.process_time()), self._began
        self.spent = ((now[0] - wall) / (STEPS - STEPS // 10), (now[1] - processor) / (STEPS - STEPS // 10))


class Ready:
    """Batches that are made already, over and over."""

    def __init__(self, rows: TensorDataset) -> None:
        self._batches = [list(rows[place : place + BATCH]) for place in range(0, len(rows), BATCH)]

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[torch.Tensor]]:
        return iter(self._batches)


def main() -> None:
    """Print a step's time, and both ratios."""
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    rows = TensorDataset(torch.randn(64 * BATCH, 32), torch.randint(0, 8, (64 * BATCH,)))
    kinds: dict[str, Callable[[], Any]] = {
        "Lightning as a live run, batches ready": lambda: Ready(rows),
        "Lightning as a live run, a shuffled DataLoader of tensors": lambda: DataLoader(rows, BATCH, shuffle=True),
    }
    with tempfile.TemporaryDirectory() as folder:
        for number, (what, data) in enumerate(kinds.items()):
            plain, live = _measured(Path(folder) / str(number), data)
            if not number:
                step = statistics.median(wall for wall, _ in plain)
                Figure("a step of Lightning's benchmark", step * 1e3, "ms").print()
            for clock, name in enumerate(("", ", in processor time")):
                ratio = statistics.median(one[clock] / other[clock] for one, other in zip(live, plain, strict=True))
                Figure(f"{what}, against without{name}", ratio, "x", None if name else PROMISE).print()


def _measured(folder: Path, data: Callable[[], Any]) -> tuple[list[Spent], list[Spent]]:
    """Seconds of a step, without and with the live layer, in pairs."""
    seconds: tuple[list[Spent], list[Spent]] = ([], [])
    for pair in range(-1, PAIRS):  # the first warms up
        for is_live in ((False, True), (True, False))[pair % 2]:
            taken = _live(folder / f"runs{pair}", data()) if is_live else _fit(data())
            if pair >= 0:
                seconds[is_live].append(taken)
    return seconds


def _fit(data: Any, session: Session[None] | None = None) -> Spent:
    clock = Clock()
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = lightning.Trainer(accelerator="cpu", max_steps=STEPS, callbacks=[clock], **quiet)
    if session is not None:
        attach(session, trainer, checkpoint=CheckpointConfig(every=10**9))
    trainer.fit(Wide(), data)
    return clock.spent


def _live(folder: Path, data: Any) -> Spent:
    run = create_run(folder, RunInfo("bench", "none"), "job: none\n", {})
    with Session(run, None, _begun(run)) as session:
        return _fit(data, session)


def _begun(run: Run) -> int:
    attempt = run.states.queue()
    run.states.move(State.STARTING, attempt=attempt)
    run.states.move(State.RUNNING, attempt=attempt, owner=Owner.current())
    return attempt


if __name__ == "__main__":
    main()
