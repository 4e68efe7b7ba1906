"""What it costs to restore a checkpoint on other numbers of processes than have saved it.

Every restoration is what an attempt does: the first process looks for the newest checkpoint that verifies, which reads
and hashes all of it, and then every process loads its part. The same state lies there as 2 x 2 processes have saved it,
as two have, and as one has; each is restored in turn. The files are in the system's memory. Moments that are read whole
are mapped from a file, and copied when a step first changes them; so a restoration counts until all of them have been.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from common import Figure

from clew.checkpoints import CheckpointStore
from clew.data.packing import Windows
from clew.models.config import ModelConfig
from clew.models.decoder import Decoder
from clew.sharding import MeshConfig
from clew.train.config import TrainingConfig
from clew.train.loop import Trainer

VOCAB, SEQ_LEN, ROUNDS = 258, 32, 5
MODEL = ModelConfig(depth=10, width=512)
FOUR, TWO = "fsdp+tp", "fsdp"
"""How the weights lie on four processes, and on two."""


def main() -> None:
    """Print how many times as long a restoration takes on fewer processes, and its seconds for each GB."""
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_save_on_four, (folder,), nprocs=4)
        mp.spawn(_restore_on_two, (folder,), nprocs=2)
        on_two = json.loads(Path(folder, "two.json").read_text())
        on_one = _restore_on_one(Path(folder))
        size = CheckpointStore(Path(folder, "4")).all()[0].manifest.bytes / 1e9
    said = f"a checkpoint of {size:.2g} GB and 2 x 2 processes, restored on"
    Figure(f"{said} 2, against one of 2: time", on_two["4"] / on_two["2"], "x", 2).print()
    Figure(f"{said} 1, against one of 1: time", on_one["4"] / on_one["1"], "x", 2).print()
    Figure(f"{said} 1", on_one["4"] / size, "s/GB").print()


def _trainer(preset: str = "none", ranks: int = 1) -> Trainer:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, slices = Decoder(MODEL, VOCAB, SEQ_LEN), None
    if ranks > 1:
        from clew.sharding.devices import build_mesh
        from clew.sharding.parallel import parallelize
        from clew.train.meshed import Meshed

        config = MeshConfig(preset=preset)
        mesh = build_mesh(config.sizes(ranks), "cpu")
        parallelize(model, config, mesh)
        slices = Meshed(mesh)
    tokens = np.random.default_rng(0).integers(0, VOCAB, 10_000).astype(np.uint16)
    config = TrainingConfig(batch_size=4)
    return Trainer(model, Windows(tokens, SEQ_LEN), config, lr=1e-4, total_steps=10**6, seed=0, slices=slices)


def _join(rank: int, ranks: int, folder: str) -> None:
    store = dist.FileStore(f"{folder}/store-{ranks}", ranks)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=ranks, timeout=timedelta(seconds=120))


def _save(trainer: Trainer, folder: Path, ranks: int) -> None:
    """Let every process write its part, and the first one hash them all."""
    store = CheckpointStore(folder)
    if not ranks or dist.get_rank() == 0:
        folder.mkdir()
    staged = [str(store.stage(trainer.step_number)) if not ranks or dist.get_rank() == 0 else None]
    if ranks:
        dist.broadcast_object_list(staged)
    trainer.save(Path(staged[0]))
    if ranks:
        dist.barrier()
    if not ranks or dist.get_rank() == 0:
        store.commit(Path(staged[0]), trainer.step_number)


def _save_on_four(rank: int, folder: str) -> None:
    _join(rank, 4, folder)
    trainer = _trainer(FOUR, 4)
    trainer.step()
    _save(trainer, Path(folder, "4"), 4)
    dist.destroy_process_group()


def _restore_on_two(rank: int, folder: str) -> None:
    _join(rank, 2, folder)
    trainer = _trainer(TWO, 2)

    def restore(which: str) -> None:
        found = [str(_newest(Path(folder, which))) if rank == 0 else None]
        dist.broadcast_object_list(found)
        trainer.load(Path(found[0]))
        _own(trainer)
        dist.barrier()

    restore("4")
    _save(trainer, Path(folder, "2"), 2)
    dist.barrier()
    taken = _in_turn(restore, "4", "2")
    if rank == 0:
        Path(folder, "two.json").write_text(json.dumps(taken))
    dist.destroy_process_group()


def _restore_on_one(folder: Path) -> dict[str, float]:
    trainer = _trainer()

    def restore(which: str) -> None:
        trainer.load(_newest(folder / which))
        _own(trainer)

    restore("4")
    _save(trainer, folder / "1", 0)
    return _in_turn(restore, "4", "1")


def _own(trainer: Trainer) -> None:
    """Change every moment by nothing, as a step changes it."""
    for moments in trainer.optimizers.state().values():
        for moment in moments.values():
            moment.mul_(1.0)


def _newest(folder: Path) -> Path:
    """The newest checkpoint that verifies, as an attempt looks for it."""
    found, bad = CheckpointStore(folder).newest_good()
    assert found is not None, bad
    return found.path


def _in_turn(restore: Callable[[str], None], *names: str) -> dict[str, float]:
    """The median seconds of each, after a first round that does not count."""
    taken: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(ROUNDS + 1):
        for name in names:
            began = time.perf_counter()
            restore(name)
            taken[name].append(time.perf_counter() - began)
    return {name: statistics.median(seconds[1:]) for name, seconds in taken.items()}


if __name__ == "__main__":
    main()
