"""What checkpoints cost: how long a training waits for one, and how long it takes to come back to one."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from common import Figure
from safetensors.torch import load_file
from waiting import Waiting

from clew.checkpoints import CheckpointStore
from clew.checkpoints.state import load_state
from clew.data.packing import Windows
from clew.models.config import ModelConfig
from clew.models.decoder import Decoder
from clew.runs import Owner, RunInfo, State, create_run
from clew.session import CheckpointConfig, Session
from clew.train.config import TrainingConfig
from clew.train.loop import Trainer
from clew.train.saved import complete_state

VOCAB, SEQ_LEN, ROUNDS = 258, 32, 5


def main() -> None:
    """Print the wait against that of ``torch.save``, and a verified restoration against a plain one."""
    torch.set_num_threads(1)
    tokens = np.random.default_rng(0).integers(0, VOCAB, 10_000).astype(np.uint16)
    model = Decoder(ModelConfig(depth=8, width=576), VOCAB, SEQ_LEN)
    trainer = Trainer(model, Windows(tokens, SEQ_LEN), TrainingConfig(batch_size=4), lr=1e-4, total_steps=10**6, seed=0)
    trainer.step()
    size = 3 * 4 * sum(parameter.numel() for parameter in model.parameters()) / 1e9
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        newest = _saving(trainer, place, size)
        _restoring(newest, size)


def _saving(trainer: Trainer, place: Path, size: float) -> Path:
    """Measure how long the loop waits for a save that is due, and return the newest checkpoint."""
    run = create_run(place / "runs", RunInfo(id="r", job="x"), "job: x\n", {})
    attempt = run.states.queue()
    run.states.move(State.STARTING, attempt=attempt)
    run.states.move(State.RUNNING, attempt=attempt, owner=Owner.current())
    waiting, stalls, saves = Waiting(trainer), [], []
    with Session(run, None, attempt) as session:
        session.attach(trainer, CheckpointConfig(every=2, keep_last=1))  # so at every step
        for _ in range(ROUNDS):
            began = time.perf_counter()
            torch.save(complete_state(trainer), place / "state.pt")
            saves.append(time.perf_counter() - began)
            waiting.seconds, began = 0.0, time.perf_counter()
            session.boundary(trainer.step_number)
            stalls.append(time.perf_counter() - began)
            trainer.step()
            stalls[-1] += waiting.seconds
            session.settled()  # the next save would wait for this one
    stall, save = statistics.median(stalls), statistics.median(saves)
    Figure(f"a due save of {size:.2g} GB: the loop waits, against torch.save", stall / save, "x", 0.1).print()
    Figure(f"a due save of {size:.2g} GB: the loop waits", 1e3 * stall, "ms").print()
    return CheckpointStore(run.checkpoints).all()[0].path


def _restoring(folder: Path, size: float) -> None:
    """Measure what it takes to find the newest checkpoint that verifies and have its tensors in memory of their own.

    The files are in the system's memory, so it is the processor's work that counts, whatever else keeps it busy.
    """
    store = CheckpointStore(folder.parent)

    def plain() -> object:
        return _cloned(load_file(folder / "trainer.safetensors"))

    def verified() -> object:
        newest, _ = store.newest_good()
        assert newest is not None
        return _cloned(load_state(newest.path, "trainer"))

    taken: dict[str, list[float]] = {"plain": [], "verified": [], "waited": []}
    for _ in range(ROUNDS + 1):
        for name, body in (("plain", plain), ("verified", verified)):
            began, waited = time.process_time(), time.perf_counter()
            body()
            taken[name].append(time.process_time() - began)
        taken["waited"].append(time.perf_counter() - waited)
    ratio = statistics.median(taken["plain"][1:]) / statistics.median(taken["verified"][1:])
    what = "a verified restoration, against safetensors alone: speed"
    Figure(what, ratio, "x", 0.8, at_least=True).print()
    Figure("a verified restoration", statistics.median(taken["waited"][1:]) / size, "s/GB").print()


def _cloned(value: object) -> object:
    """Copy the tensors out of the mapped file, as a model that takes them over does."""
    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {key: _cloned(item) for key, item in value.items()}
    return [_cloned(item) for item in value] if isinstance(value, list | tuple) else value


if __name__ == "__main__":
    main()
