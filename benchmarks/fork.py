"""What a fork costs: a live training with a state of 1 GB whose child is asked for, and a checkpoint of 1 GB on disk.

The child of a live run is borne as ``clew fork`` has it: by a command in the inbox, at a boundary, while the training
goes on. What it waits for is the boundary with the command, against another one, and whatever the next step waits until
the tensors that it changes are copied; the disk comes after that.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from common import Figure
from snapshot import SEQ_LEN, VOCAB, Waiting

from clew.checkpoints import Checkpoint, CheckpointStore
from clew.data.packing import Windows
from clew.models.config import ModelConfig
from clew.models.decoder import Decoder
from clew.runs import Owner, Run, RunInfo, State, create_run
from clew.runs.run import stage_run
from clew.session import CheckpointConfig, Session
from clew.session.forking import bear
from clew.train.config import TrainingConfig
from clew.train.loop import Trainer

FORKS, PIECES, DEADLINE = 3, 8, 300.0
GIGABYTE = 10**9


def main() -> None:
    """Print both."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        _live(Path(folder))
    with tempfile.TemporaryDirectory() as folder:
        _on_disk(Path(folder))


def _live(runs: Path) -> None:
    run, attempt = _running(runs)
    trainer = _trainer()
    waiting, pauses = Waiting(trainer), []
    with Session(run, None, attempt) as session:
        session.attach(trainer, CheckpointConfig(every=10**9, keep_last=1))
        usual = statistics.median(_boundary(session, trainer) for _ in range(3))
        for number in range(FORKS):
            child = stage_run(runs, RunInfo(f"child-{number}", "none", parent=run.id), "job: none\n", {})
            run.inbox.send("fork", staging=child.path.name)
            waiting.seconds = 0.0
            pause = _boundary(session, trainer) - usual
            trainer.step()
            pauses.append(pause + waiting.seconds)
            _until_borne(session, trainer, runs / f"child-{number}")
    Figure("a fork of a live state of 1 GB: the training waits", 1e3 * statistics.median(pauses), "ms", 100).print()


def _boundary(session: Session[None], trainer: Trainer) -> float:
    """Make a step, and return the seconds of the boundary after it."""
    trainer.step()
    began = time.perf_counter()
    session.boundary(trainer.step_number)
    return time.perf_counter() - began


def _until_borne(session: Session[None], trainer: Trainer, child: Path) -> None:
    deadline = time.monotonic() + DEADLINE
    while not (child / "run.json").is_file():
        if time.monotonic() > deadline:
            raise TimeoutError("the child was never borne")
        _boundary(session, trainer)


def _running(runs: Path) -> tuple[Run, int]:
    run = create_run(runs, RunInfo("parent", "none"), "job: none\n", {})
    attempt = run.states.queue()
    run.states.move(State.STARTING, attempt=attempt)
    run.states.move(State.RUNNING, attempt=attempt, owner=Owner.current())
    return run, attempt


def _trainer() -> Trainer:
    """A training whose weights and moments take 1 GB."""
    tokens = np.random.default_rng(0).integers(0, VOCAB, 10_000).astype(np.uint16)
    model = Decoder(ModelConfig(depth=12, width=768), VOCAB, SEQ_LEN)
    config = TrainingConfig(batch_size=4)
    trainer = Trainer(model, Windows(tokens, SEQ_LEN), config, lr=1e-4, total_steps=10**6, seed=0)
    trainer.step()
    return trainer


def _on_disk(runs: Path) -> None:
    parent = create_run(runs, RunInfo("parent", "none"), "job: none\n", {})
    checkpoint = CheckpointStore(parent.checkpoints, attempt=1).save(1, _gigabyte)
    links = statistics.median(_borne(runs, checkpoint, number) for number in range(9))
    began = time.perf_counter()
    if problem := checkpoint.problem():
        raise ValueError(problem)
    verified = time.perf_counter() - began
    Figure("a checkpoint of 1 GB becomes a child's, by hard links", 1e3 * links, "ms", 100).print()
    Figure("before that: it is verified", verified, "s").print()


def _gigabyte(directory: Path) -> None:
    block = np.random.default_rng(0).bytes(GIGABYTE // PIECES)
    for piece in range(PIECES):
        (directory / f"piece-{piece}").write_bytes(block)


def _borne(runs: Path, checkpoint: Checkpoint, number: int) -> float:
    child = stage_run(runs, RunInfo(f"child-{number}", "none", parent="parent"), "job: none\n", {})
    began = time.perf_counter()
    bear(child, checkpoint)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
