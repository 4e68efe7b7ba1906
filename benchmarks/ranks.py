"""Two processes on two cores against one process with two threads, and how long a command to several ranks waits.

Both trainings go on in turn: while the one steps, the other's processes wait at a pipe. The command's time is from its
posting to its outcome on the disk, in a run of two ranks whose steps take 5 ms; they meet every 0.2 s.
"""

from __future__ import annotations

import multiprocessing as mp
import os
import random
import statistics
import tempfile
import threading
import time
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "2"  # each process sets its own number below

import numpy as np
import torch
import torch.distributed as dist
from common import Figure

from clew.data.packing import Windows
from clew.models.config import ModelConfig
from clew.models.decoder import Decoder
from clew.runs import Owner, Run, RunInfo, State, create_run
from clew.session import CheckpointConfig, RunStopped, Setting
from clew.session.helping import Helping
from clew.session.leading import Leading
from clew.session.ranks import join, listener
from clew.sharding import MeshConfig
from clew.train.config import TrainingConfig
from clew.train.loop import Trainer

VOCAB, SEQ_LEN, BATCH, STEPS, ROUNDS = 256, 128, 32, 5, 7
STEP_SECONDS, COMMANDS = 0.005, 20


def main() -> None:
    """Print the ratio of tokens a second, and the wait of a command."""
    alone, together = _speeds()
    Figure("2 processes on 2 cores, against one with 2 threads", alone / together, "x", 0.9, at_least=True).print()
    waits = _waits()
    Figure("a command to a run of 2 ranks, until its outcome, median", statistics.median(waits), "s", 0.5).print()


def _trainer(ranks: int) -> Trainer:
    torch.manual_seed(0)
    model, slices = Decoder(ModelConfig(depth=4), VOCAB, SEQ_LEN), None
    if ranks > 1:
        from clew.sharding.devices import build_mesh
        from clew.sharding.parallel import parallelize
        from clew.train.meshed import Meshed

        config = MeshConfig(preset="ddp")
        mesh = build_mesh(config.sizes(ranks), "cpu")
        parallelize(model, config, mesh)
        slices = Meshed(mesh)
    tokens = np.random.default_rng(0).integers(0, VOCAB, 100_000).astype(np.uint16)
    settings = TrainingConfig(batch_size=BATCH)
    return Trainer(model, Windows(tokens, SEQ_LEN), settings, lr=1e-3, total_steps=10**6, seed=0, slices=slices)


def _speeds() -> tuple[float, float]:
    """The median seconds of some steps in one process, and in two."""
    spawn = mp.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        pipes, processes = [], []
        for rank in (0, 1):
            ours, theirs = spawn.Pipe()
            process = spawn.Process(target=_rank, args=(rank, f"{folder}/store", theirs), daemon=True)
            process.start()
            pipes.append(ours)
            processes.append(process)
        torch.set_num_threads(2)
        trainer = _trainer(1)
        alone, together = [], []
        for _ in range(ROUNDS + 1):
            alone.append(_timed(partial(_steps, trainer)))
            together.append(_timed(partial(_ask, pipes)))
        for pipe in pipes:
            pipe.send(False)
        for process in processes:
            process.join(timeout=60)
    return statistics.median(alone[1:]), statistics.median(together[1:])


def _timed(body) -> float:
    began = time.perf_counter()
    body()
    return time.perf_counter() - began


def _steps(trainer: Trainer) -> None:
    for _ in range(STEPS):
        trainer.step()
    trainer.measure()


def _ask(pipes) -> None:
    for pipe in pipes:
        pipe.send(True)
    for pipe in pipes:
        pipe.recv()


def _rank(rank: int, store: str, pipe) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", store=dist.FileStore(store, 2), rank=rank, world_size=2, timeout=timedelta(seconds=120)
    )
    trainer = _trainer(2)
    while pipe.recv():
        _steps(trainer)
        pipe.send(True)
    dist.destroy_process_group()


class _Counter:
    """A trainer that does nothing but take time."""

    def __init__(self) -> None:
        self.rate = 1.0

    def save(self, directory: Path) -> None:
        """There is nothing to save."""

    def load(self, directory: Path) -> None:
        """There is nothing to restore."""

    def settings(self) -> list[Setting]:
        """One number."""
        return [Setting("rate", lambda: self.rate, partial(setattr, self, "rate"), low=0)]


class _Alive:
    signal = ""

    def check(self) -> None:
        """Nothing is wrong."""


def _waits() -> list[float]:
    spawn, waits = mp.get_context("spawn"), []
    with tempfile.TemporaryDirectory() as folder:
        run = create_run(Path(folder) / "runs", RunInfo(id="r", job="count"), "job: count\n", {})
        number = run.states.queue()
        run.states.move(State.STARTING, attempt=number)
        run.states.move(State.RUNNING, attempt=number, owner=Owner.current())
        listening = listener()
        port = listening.getsockname()[1]
        helper = spawn.Process(target=_help, args=(str(run.path), number, port), daemon=True)
        helper.start()
        ranks = join(0, 2, port, listening)
        done = threading.Event()

        def ask() -> None:
            for value in range(COMMANDS):
                time.sleep(random.uniform(0.2, 0.6))
                began = time.perf_counter()
                run.inbox.send("set", rate=value)
                while len(list(run.events("command"))) <= value:
                    time.sleep(0.002)
                waits.append(time.perf_counter() - began)
            done.set()

        with suppress(RunStopped), Leading(run, None, number, None, ranks=ranks, crew=_Alive()) as session:
            session.attach(_Counter(), CheckpointConfig(every=None))
            threading.Thread(target=ask, daemon=True).start()
            step = 0
            while not done.is_set():
                step += 1
                time.sleep(STEP_SECONDS)
                session.boundary(step)
            run.inbox.send("stop")
            _go_on(session, step)
        helper.join(timeout=60)
    return waits


def _go_on(session, step: int) -> None:
    while True:
        step += 1
        time.sleep(STEP_SECONDS)
        session.boundary(step)


def _help(path: str, attempt: int, port: int) -> None:
    ranks = join(1, 2, port)
    with suppress(RunStopped), Helping(Run(Path(path)), None, attempt, ranks=ranks, tell=print) as session:
        _go_on(session, session.attach(_Counter()))


if __name__ == "__main__":
    main()
