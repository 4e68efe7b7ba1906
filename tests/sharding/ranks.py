"""Processes of a mesh, and what they find out: run by :mod:`test_equality`, in processes of their own."""

from __future__ import annotations

import copy
import json
import multiprocessing
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

from clew.data.packing import IGNORED
from clew.models.config import ModelConfig
from clew.models.decoder import Decoder
from clew.sharding import MeshConfig
from clew.sharding.devices import (
    build_mesh,
    clip_gradients,
    data_rank,
    full_tensor,
    global_sum,
    local_part,
    local_slices,
    shard_batch,
    sync_gradients,
)
from clew.sharding.parallel import declare, parallelize
from clew.sharding.plan import plan
from clew.sharding.work import Work
from clew.train.losses import summed_loss

VOCAB, CONTEXT, BATCH, MICRO_STEPS, STEPS, MAX_NORM = 37, 16, 8, 2, 2, 0.3
DEADLINE = 200.0
KINDS = {
    "all-gather": ("all_gather", "allgather"),
    "reduce-scatter": ("reduce_scatter",),
    "all-reduce": ("all_reduce", "allreduce"),
}


@dataclass(frozen=True)
class Case:
    """A mesh, and the model that is put on it."""

    mesh: MeshConfig
    model: Callable[[], nn.Module]


def start(ranks: int, folder: Path, names: list[str]) -> dict[str, dict[str, float]]:
    """Run cases on some processes, and return how far each is from one process alone."""
    # One process imports torch, and the ranks are copies of it.
    multiprocessing.get_context("forkserver").set_forkserver_preload([__name__])
    processes = mp.start_processes(
        _rank, (ranks, str(folder), names), nprocs=ranks, join=False, start_method="forkserver"
    )
    deadline = time.monotonic() + DEADLINE
    try:
        while not processes.join(timeout=1.0):
            assert time.monotonic() < deadline, "the processes did not end in time"
    finally:
        for process in processes.processes:
            process.kill()
    return json.loads((folder / "found.json").read_text())


def _rank(rank: int, ranks: int, folder: str, names: list[str]) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/store", ranks)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=ranks, timeout=timedelta(seconds=90))
    try:
        found = {name: compare(CASES[name], ranks) for name in names}
        if rank == 0:
            Path(folder, "found.json").write_text(json.dumps(found))
    finally:
        dist.destroy_process_group()


def decoder(*, tied: bool = True, kv_heads: int = 2) -> nn.Module:
    torch.manual_seed(1)
    config = ModelConfig(depth=2, width=32, heads=4, kv_heads=kv_heads, mlp_width=64, tied=tied)
    return Decoder(config, VOCAB, CONTEXT)


class Logits(nn.Module):
    """A decoder of Transformers, which gives more than logits."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, tokens):
        return self.inner(input_ids=tokens, use_cache=False).logits


def huggingface(kind: str) -> nn.Module:
    import transformers

    torch.manual_seed(1)
    sizes = {
        "vocab_size": VOCAB,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
    }
    if kind == "llama":
        config = transformers.LlamaConfig(**sizes, tie_word_embeddings=True)
    elif kind == "qwen":
        config = transformers.Qwen3Config(**sizes, tie_word_embeddings=False)
    else:
        config = transformers.GPT2Config(
            vocab_size=VOCAB,
            bos_token_id=0,
            eos_token_id=0,
            n_embd=32,
            n_layer=2,
            n_head=4,
            resid_pdrop=0,
            embd_pdrop=0,
            attn_pdrop=0,
        )
    return Logits(transformers.AutoModelForCausalLM.from_config(config))


def llama() -> nn.Module:
    return huggingface("llama")


def qwen() -> nn.Module:
    return huggingface("qwen")


def gpt2() -> nn.Module:
    return huggingface("gpt2")


def untied() -> nn.Module:
    return decoder(tied=False)


def four_kv_heads() -> nn.Module:
    return decoder(kv_heads=4)


CASES = {
    "2 ddp": Case(MeshConfig(preset="ddp"), decoder),
    "2 fsdp": Case(MeshConfig(preset="fsdp"), decoder),
    "2 tp": Case(MeshConfig(preset="tp"), decoder),
    "2 tp, the vocabulary whole": Case(
        MeshConfig(preset="tp", at_rest={"vocab": None}, compute={"vocab": None}), decoder
    ),
    "2 llama fsdp": Case(MeshConfig(preset="fsdp"), llama),
    "2 llama tp": Case(MeshConfig(preset="tp"), llama),
    "2 qwen tp": Case(MeshConfig(preset="tp"), qwen),
    "2 gpt2 tp": Case(MeshConfig(preset="tp"), gpt2),
    "2 gpt2 fsdp": Case(MeshConfig(preset="fsdp"), gpt2),
    "4 ddp": Case(MeshConfig(preset="ddp"), decoder),
    "4 fsdp": Case(MeshConfig(preset="fsdp"), untied),
    "4 tp": Case(MeshConfig(preset="tp"), four_kv_heads),
    "4 fsdp+tp": Case(MeshConfig(preset="fsdp+tp"), decoder),
    "4 fsdp+tp along uneven rows": Case(MeshConfig(preset="fsdp+tp", at_rest={"embed": None}), decoder),
    "4 hsdp": Case(MeshConfig(preset="hsdp"), decoder),
    "4 ddp and tp": Case(MeshConfig(preset="tp", data=2, tensor=2), decoder),
}


def batch(step: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets of a step, ragged: the slices of the ranks have very different numbers of targets."""
    random = np.random.default_rng(step)
    inputs = random.integers(0, VOCAB, (BATCH, CONTEXT))
    targets = random.integers(0, VOCAB, (BATCH, CONTEXT))
    for row in range(BATCH):
        targets[row, CONTEXT - row * 2 :] = IGNORED
    return inputs, targets


def compare(case: Case, ranks: int) -> dict[str, float]:
    """Train on one process and on the mesh, and return the largest differences; all ranks call it together."""
    alone, shared = case.model(), case.model()
    mesh = build_mesh(case.mesh.sizes(ranks), "cpu")
    shared = parallelize(shared, case.mesh, mesh)
    optimizers = [torch.optim.AdamW(model.parameters(), lr=1e-2, fused=True) for model in (alone, shared)]
    far = dict.fromkeys(("loss", "norm", "gradient", "weight"), 0.0)
    far["collectives"] = float(_counted(shared, mesh) != _expected(case, ranks))
    shared.zero_grad()
    for step in range(STEPS):
        loss, norm = _alone(alone, step)
        own_loss, own_norm = _together(shared, mesh, step)
        far["loss"] = max(far["loss"], abs(own_loss - loss))
        far["norm"] = max(far["norm"], abs(own_norm - norm) / norm)
        if step == 0:  # later ones are of weights that are apart already
            far["gradient"] = _apart(_gradients(alone), _gradients(shared))
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    far["weight"] = _apart(dict(alone.named_parameters()), dict(shared.named_parameters()))
    far["slices"] = float(_slices_are_wrong(shared))
    far["names"] = float(list(dict(alone.named_parameters())) != list(dict(shared.named_parameters())))
    far["states"] = float(alone.state_dict().keys() != shared.state_dict().keys())
    return far


def _alone(model: nn.Module, step: int) -> tuple[float, float]:
    inputs, targets = (torch.from_numpy(array) for array in batch(step))
    loss = summed_loss(model, inputs, targets, precision=torch.float32) / (targets != IGNORED).sum()
    loss.backward()
    return loss.item(), float(nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM))


def _together(model: nn.Module, mesh, step: int) -> tuple[float, float]:
    inputs, targets = (torch.from_numpy(shard_batch(array, *data_rank(mesh))) for array in batch(step))
    num_targets = global_sum((targets != IGNORED).sum(), mesh)
    total = torch.zeros(())
    size = len(inputs) // MICRO_STEPS
    for index in range(MICRO_STEPS):
        sync_gradients(model, last=index == MICRO_STEPS - 1)
        part = slice(index * size, (index + 1) * size)
        loss = summed_loss(model, inputs[part], targets[part], precision=torch.float32) / num_targets
        loss.backward()
        total += loss.detach()
    norm = clip_gradients(model.parameters(), MAX_NORM)
    return float(global_sum(total, mesh)), float(norm)


class Counter(TorchDispatchMode):
    """Notes the names of collectives."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented  # it makes plain operations of it, which come here again
        if func.namespace in ("c10d", "_c10d_functional") and "wait_tensor" not in func.name():
            self.seen.append(func.name())
        return func(*args, **(kwargs or {}))


def _counted(model: nn.Module, mesh) -> dict[str, int]:
    """How many collectives of each kind the passes of a step make."""
    inputs = torch.from_numpy(shard_batch(batch(0)[0], *data_rank(mesh)))
    with torch.no_grad():
        model(inputs)  # DDP sets itself up
    with Counter() as counter:
        for index, part in enumerate(inputs.chunk(MICRO_STEPS)):
            sync_gradients(model, last=index == MICRO_STEPS - 1)
            model(part).sum().backward()
    found = dict.fromkeys(KINDS, 0)
    for name in counter.seen:
        for kind, words in KINDS.items():
            found[kind] += any(word in name for word in words)
    return found


def _expected(case: Case, ranks: int) -> dict[str, int]:
    sizes = case.mesh.sizes(ranks)
    micro = BATCH // (sizes["data"] * sizes["fsdp"]) // MICRO_STEPS
    with torch.device("meta"):
        declared = declare(case.model(), case.mesh)
    work = Work(batch_size=BATCH, seq_len=CONTEXT, micro_batch_size=micro)
    found = dict.fromkeys(KINDS, 0)
    for one in plan(declared, sizes, case.mesh.rules, work).collectives:
        found[one.op] += one.count
    return found


def _gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.grad for name, parameter in model.named_parameters()}


@torch.no_grad()
def _apart(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> float:
    """The largest difference, relative to the largest number of the tensor."""
    return max(
        float((full_tensor(name, other[name]) - tensor).abs().max() / tensor.abs().max().clamp(min=1e-3))
        for name, tensor in one.items()
    )


def _slices_are_wrong(model: nn.Module) -> bool:
    """Whether some process holds another part than it says."""
    for name, parameter in model.named_parameters():
        whole = copy.deepcopy(full_tensor(name, parameter))
        offsets, sizes = local_slices(parameter)
        region = tuple(slice(offset, offset + size) for offset, size in zip(offsets, sizes, strict=True))
        if not whole[region].equal(local_part(parameter).detach()):
            return True
    return False
