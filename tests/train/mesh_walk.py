"""One training that walks over meshes: each leg restores what the one before has saved, trains on, and saves.

All legs happen in the same four processes, of which each leg takes as many as it needs.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from clew.data.packing import Windows
from clew.models.config import ModelConfig
from clew.models.decoder import Decoder
from clew.sharding import MeshConfig
from clew.sharding.devices import build_mesh
from clew.sharding.parallel import parallelize
from clew.train import TrainingConfig
from clew.train.loop import Trainer
from clew.train.meshed import Meshed
from support import in_ranks

VOCAB, CONTEXT, STEPS = 29, 12, 2
DEADLINE = 90.0


@dataclass(frozen=True)
class Leg:
    """So many ranks on a mesh; a single one trains as a run without a mesh does."""

    ranks: int
    preset: str = "none"

    @property
    def name(self) -> str:
        return f"{self.ranks}-{self.preset}"


def trainer(leg: Leg) -> Trainer:
    """A fresh trainer, in this process's part of the leg's mesh."""
    torch.manual_seed(3)
    model = Decoder(ModelConfig(depth=2, width=16, heads=4, kv_heads=2, mlp_width=32), VOCAB, CONTEXT)
    tokens = np.random.default_rng(0).integers(0, VOCAB, 40 * CONTEXT + 5).astype(np.uint16)
    config = TrainingConfig(steps=20, batch_size=7, micro_batch_size=3, max_grad_norm=0.5)
    slices = None
    if leg.ranks > 1:
        mesh = build_mesh(MeshConfig(preset=leg.preset).sizes(leg.ranks), "cpu")
        parallelize(model, MeshConfig(preset=leg.preset), mesh)
        slices = Meshed(mesh)
    return Trainer(model, Windows(tokens, CONTEXT), config, lr=0.01, total_steps=20, seed=5, slices=slices)


def walk(folder: Path, legs: list[Leg]) -> list[dict]:
    """Take the legs one after the other, and return what each has found."""
    in_ranks(4, _rank, str(folder), [asdict(leg) for leg in legs], seconds=DEADLINE)
    return [json.loads((folder / f"{number}.json").read_text()) for number in range(len(legs))]


def _rank(rank: int, folder: str, legs: list[dict]) -> None:
    torch.set_num_threads(1)
    for number, given in enumerate(legs):
        leg = Leg(**given)
        if rank >= leg.ranks:
            continue
        _wait_for(Path(folder, f"{number - 1}.json") if number else None)
        if leg.ranks == 1:
            _take(Path(folder), number, leg)
            continue
        store = dist.FileStore(f"{folder}/store-{number}", leg.ranks)
        dist.init_process_group(
            "gloo", store=store, rank=rank, world_size=leg.ranks, timeout=timedelta(seconds=DEADLINE)
        )
        try:
            _take(Path(folder), number, leg)
        finally:
            dist.destroy_process_group()


def _wait_for(path: Path | None) -> None:
    deadline = time.monotonic() + DEADLINE
    while path is not None and not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _take(folder: Path, number: int, leg: Leg) -> None:
    """Restore, save at once what was restored, train on, and save that."""
    mine = trainer(leg)
    rank = dist.get_rank() if leg.ranks > 1 else 0
    restored, saved = folder / f"restored-{number}", folder / f"saved-{number}"
    if rank == 0:
        restored.mkdir()
        saved.mkdir()
    if number:
        mine.load(folder / f"saved-{number - 1}")
    _meet(leg)
    mine.save(restored)
    losses = []
    for _ in range(STEPS):
        mine.step()
        losses.append(mine.measure()["loss"])
    found = {"losses": losses, "val_loss": mine.loss_on(mine.samples), "seen": mine.feed.samples_seen}
    found["tokens"] = mine.tokens_seen
    found["digests"] = dict(mine.digests())
    mine.save(saved)
    again = trainer(leg)
    _meet(leg)
    again.load(saved)
    found["same"] = dict(again.digests()) == found["digests"]
    mine.step()
    again.step()
    found["bitwise"] = dict(again.digests()) == dict(mine.digests())
    _meet(leg)
    if rank == 0:
        (folder / "new.json").write_text(json.dumps(found))
        (folder / "new.json").rename(folder / f"{number}.json")


def _meet(leg: Leg) -> None:
    if leg.ranks > 1:
        dist.barrier()
