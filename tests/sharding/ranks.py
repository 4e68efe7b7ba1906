"""Processes of a mesh, and what each of them finds out: run by :mod:`test_equality`, in processes of their own."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed._functional_collectives import AsyncCollectiveTensor
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

from clew.checkpoints.digest import tensors_digest
from clew.data.packing import IGNORED, Batch
from clew.models.config import ModelConfig
from clew.models.decoder import Decoder
from clew.sharding import MeshConfig
from clew.sharding.devices import build_mesh, full_tensor, local_part, local_slices, sync_gradients
from clew.sharding.parallel import declare, parallelize
from clew.sharding.plan import Plan, plan
from clew.sharding.work import Work
from clew.train.losses import accumulate_gradients, summed_loss
from clew.train.meshed import Meshed
from clew.train.scoring import WindowScorer
from clew.train.slices import Slices, Whole
from clew.train.switches import checkpoint_activations
from support import in_ranks

VOCAB, CONTEXT, MAX_NORM, PASSES = 37, 16, 0.3, 2
DEADLINE = 240.0
KINDS = {
    "all-gather": ("all_gather", "allgather"),
    "reduce-scatter": ("reduce_scatter",),
    "all-reduce": ("all_reduce", "allreduce"),
}
BATCHES = {"ragged": 8, "does not divide": 7, "some slices have no targets": 8}
"""Samples in each batch, by what is special about it; each is a step of the training."""


@dataclass(frozen=True)
class Case:
    """A mesh, and the model that is put on it."""

    mesh: MeshConfig
    model: Callable[[], nn.Module]
    checkpointing: bool = False
    """Whether layers are computed again in the backward pass."""
    weighed: bool = False
    """Whether what its passes keep is compared with the estimate."""

    @property
    def scored(self) -> bool:
        """Whether single samples are looked at: only the native decoder's are."""
        return self.model in (decoder, untied, four_kv_heads, deep)


def start(ranks: int, folder: Path, names: list[str]) -> list[dict[str, dict[str, float | str]]]:
    """Run cases on some processes, and return of each how far it finds each case from one process alone."""
    in_ranks(ranks, _rank, ranks, str(folder), names, seconds=DEADLINE)
    return [json.loads((folder / f"found-{rank}.json").read_text()) for rank in range(ranks)]


def _rank(rank: int, ranks: int, folder: str, names: list[str]) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/store", ranks)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=ranks, timeout=timedelta(seconds=90))
    try:
        found = {name: compare(CASES[name], ranks) for name in names}
        Path(folder, f"found-{rank}.json").write_text(json.dumps(found))
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


def deep() -> nn.Module:
    torch.manual_seed(1)
    config = ModelConfig(depth=4, width=48, heads=4, kv_heads=2, mlp_width=128)
    return Decoder(config, VOCAB, CONTEXT)


def mesh(preset: str, data: int, fsdp: int, tensor: int, **rules: str | None) -> MeshConfig:
    """A mesh of these sizes; rules for both tables, but for those of activations."""
    inside = {axis: rule for axis, rule in rules.items() if axis not in ("seq", "logits")}
    return MeshConfig(preset=preset, data=data, fsdp=fsdp, tensor=tensor, at_rest=inside, compute=rules)


CASES = {
    "1 ddp": Case(mesh("ddp", 1, 1, 1), decoder),
    "1 fsdp": Case(mesh("fsdp", 1, 1, 1), decoder),
    "1 tp": Case(mesh("tp", 1, 1, 1), decoder),
    "1 fsdp+tp": Case(mesh("fsdp+tp", 1, 1, 1), decoder),
    "1 hsdp": Case(mesh("hsdp", 1, 1, 1), decoder),
    "1 tp+sp": Case(mesh("tp+sp", 1, 1, 1), decoder),
    "1 fsdp+tp+sp": Case(mesh("fsdp+tp+sp", 1, 1, 1), decoder),
    "2 ddp": Case(mesh("ddp", 2, 1, 1), decoder),
    "2 fsdp": Case(mesh("fsdp", 1, 2, 1), decoder),
    "2 tp": Case(mesh("tp", 1, 1, 2), decoder),
    "2 fsdp+tp": Case(mesh("fsdp+tp", 1, 1, 2), decoder),
    "2 hsdp": Case(mesh("hsdp", 2, 1, 1), decoder),
    "2 tp+sp": Case(mesh("tp+sp", 1, 1, 2), decoder),
    "2 fsdp+tp+sp": Case(mesh("fsdp+tp+sp", 1, 1, 2), untied),
    "2 tp, the vocabulary whole": Case(mesh("tp", 1, 1, 2, vocab=None), decoder),
    "2 tp, the stream split and the logits whole": Case(mesh("tp", 1, 1, 2, seq="tensor"), decoder),
    "2 tp, the stream split and the vocabulary whole": Case(mesh("tp", 1, 1, 2, seq="tensor", vocab=None), decoder),
    "2 tp, the logits split and the stream whole": Case(mesh("tp", 1, 1, 2, logits="tensor"), untied),
    "2 tp+sp, more layers": Case(mesh("tp+sp", 1, 1, 2), deep, weighed=True),
    "2 tp, layers computed again": Case(mesh("tp", 1, 1, 2), decoder, checkpointing=True),
    "2 llama fsdp": Case(mesh("fsdp", 1, 2, 1), llama),
    "2 llama tp": Case(mesh("tp", 1, 1, 2), llama),
    "2 llama tp, the logits split": Case(mesh("tp", 1, 1, 2, logits="tensor"), llama),
    "2 qwen tp": Case(mesh("tp", 1, 1, 2), qwen),
    "2 gpt2 tp": Case(mesh("tp", 1, 1, 2), gpt2),
    "2 gpt2 fsdp": Case(mesh("fsdp", 1, 2, 1), gpt2),
    "4 ddp": Case(mesh("ddp", 4, 1, 1), decoder),
    "4 fsdp": Case(mesh("fsdp", 1, 4, 1), untied),
    "4 tp": Case(mesh("tp", 1, 1, 4), four_kv_heads),
    "4 tp+sp": Case(mesh("tp+sp", 1, 1, 4), four_kv_heads),
    "2x2 fsdp+tp": Case(mesh("fsdp+tp", 1, 2, 2), decoder),
    "2x2 fsdp+tp+sp": Case(mesh("fsdp+tp+sp", 1, 2, 2), decoder),
    "2x2 fsdp+tp along uneven rows": Case(MeshConfig(preset="fsdp+tp", at_rest={"embed": None}), decoder),
    "2x2 fsdp+tp, qwen": Case(mesh("fsdp+tp", 1, 2, 2), qwen),
    "2x2 fsdp+tp+sp, layers computed again": Case(mesh("fsdp+tp+sp", 1, 2, 2), deep, checkpointing=True),
    "2x2 hsdp": Case(mesh("hsdp", 2, 2, 1), decoder),
    "2x2 ddp and tp": Case(mesh("tp", 2, 1, 2), decoder),
    "2x2 ddp and tp+sp": Case(mesh("tp+sp", 2, 1, 2), untied),
}
RANKS = {"1": 1, "2": 2, "4": 4, "2x2": 4}
"""Processes of a case, by the beginning of its name."""


def batches() -> dict[str, Batch]:
    """Inputs and targets of each step: the slices of the ranks have very different numbers of targets."""
    made = {}
    for number, (name, size) in enumerate(BATCHES.items()):
        random = np.random.default_rng(number)
        inputs, targets = random.integers(0, VOCAB, (2, size, CONTEXT))
        for row in range(size):
            targets[row, max(0, CONTEXT - row * (4 if name.startswith("some") else 2)) :] = IGNORED
        made[name] = Batch(inputs, targets)
    return made


@dataclass(frozen=True)
class Given:
    """A batch, as samples of which all are asked for."""

    whole: Batch
    digest: str = ""

    def __len__(self) -> int:
        return len(self.whole.inputs)

    def batch(self, ids) -> Batch:
        return Batch(self.whole.inputs[ids], self.whole.targets[ids])


@dataclass
class Training:
    """A model, and how it is trained: on one process, or on a mesh."""

    model: nn.Module
    slices: Slices
    num_slices: int = 1

    def __post_init__(self) -> None:
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=3e-3, fused=True)

    def compute(self, batch: Batch) -> tuple[float, float, dict[str, torch.Tensor]]:
        """Return the loss, the norm and, by name, the clipped gradients of a batch."""
        self.optimizer.zero_grad()
        own = self.slices.batch(Given(batch), np.arange(len(batch.inputs)))
        loss = accumulate_gradients(
            self.model,
            own,
            micro_batch_size=-(-len(own.inputs) // PASSES),
            device=torch.device("cpu"),
            precision=torch.float32,
            num_targets=self.slices.count(own.num_targets),
            before_pass=lambda last: self.slices.before_pass(self.model, last=last),
            slices=self.slices,
        )
        norm = self.slices.clip(self.model.parameters(), MAX_NORM)
        gradients = {name: parameter.grad for name, parameter in self.model.named_parameters()}
        return float(self.slices.total(loss)), float(norm), dict(self.slices.whole(gradients.items()))


def compare(case: Case, ranks: int) -> dict[str, float | str]:
    """Train on one process and on the mesh, and return the largest differences; all ranks call it together.

    Besides, it returns a digest of the weights at the end, by which the ranks are compared with each other.
    """
    sizes = case.mesh.sizes(ranks)
    mesh = build_mesh(sizes, "cpu")
    alone = Training(case.model(), Whole())
    shared = Training(parallelize(case.model(), case.mesh, mesh), Meshed(mesh), sizes["data"] * sizes["fsdp"])
    if case.checkpointing:
        checkpoint_activations(shared.model)
    far = {"collectives": float(_counted(shared) != _expected(case, sizes, shared.num_slices))}
    if case.weighed:
        far["activations"] = _kept(shared) / _plan(case, sizes, shared.num_slices).memory.activations - 1
    first, *others = batches().values()
    for batch in others:
        _note(far, _differences(alone.compute(batch), shared.compute(batch)))
    if case.scored:
        far["scores"] = _apart(_scores(alone), _scores(shared))
    for step, batch in enumerate([first, *others], 1):
        computed = [training.compute(batch) for training in (alone, shared)]
        if step == 1:
            _note(far, _differences(*computed))
        for training in (alone, shared):
            training.optimizer.step()
        if step in (1, len(BATCHES)):
            weights = (dict(one.slices.whole(one.model.named_parameters())) for one in (alone, shared))
            far["weights after one step" if step == 1 else "weights after three steps"] = _apart(*weights)
    far["digest"] = tensors_digest(shared.slices.whole(shared.model.named_parameters()))
    far["slices"] = float(_slices_are_wrong(shared.model))
    names = [list(dict(one.model.named_parameters())) for one in (alone, shared)]
    far["names"] = float(names[0] != names[1])
    far["states"] = float(alone.model.state_dict().keys() != shared.model.state_dict().keys())
    return far


def _note(far: dict[str, float], found: Mapping[str, float]) -> None:
    for what, difference in found.items():
        far[what] = max(far.get(what, 0.0), difference)


def _differences(alone: tuple[float, float, dict], shared: tuple[float, float, dict]) -> dict[str, float]:
    return {
        "loss": abs(shared[0] - alone[0]),
        "norm": abs(shared[1] - alone[1]) / alone[1],
        "gradient": _apart(alone[2], shared[2]),
    }


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


def _scores(training: Training) -> dict[str, torch.Tensor]:
    """How well the model knows each sample, as every process is told."""
    samples = Given(batches()["does not divide"])
    scorer = WindowScorer(training.model, samples, str, batch_size=99, precision=torch.float32, slices=training.slices)
    found = scorer.score(np.arange(len(samples)))
    return {name: torch.from_numpy(getattr(found, name)) for name in ("loss", "margin", "embedding")}


def _kept(shared: Training) -> int:
    """The bytes that a pass keeps for its backward pass, besides the weights."""
    weights = {local_part(parameter.detach()).untyped_storage().data_ptr() for parameter in shared.model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor):
        part = tensor._local_tensor if isinstance(tensor, DTensor) else tensor
        storage = (part.elem if isinstance(part, AsyncCollectiveTensor) else part).untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    part = batches()["ragged"].inputs[: BATCHES["ragged"] // shared.num_slices // PASSES]
    tokens = torch.from_numpy(part)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = summed_loss(shared.model, tokens, tokens, precision=torch.float32, slices=shared.slices)
    loss.backward()  # every rank has kept its own: no process may be left waiting
    return sum(kept.values())


def _counted(shared: Training) -> dict[str, int]:
    """How many collectives of each kind the passes of a step make."""
    whole = batches()["ragged"]
    own = shared.slices.batch(Given(whole), np.arange(len(whole.inputs)))
    inputs, targets = torch.from_numpy(own.inputs), torch.from_numpy(own.targets)
    with torch.no_grad():
        shared.model(inputs)  # DDP sets itself up
    with Counter() as counter:
        for index in range(PASSES):
            sync_gradients(shared.model, last=index == PASSES - 1)
            part = slice(index * len(inputs) // PASSES, (index + 1) * len(inputs) // PASSES)
            summed_loss(
                shared.model, inputs[part], targets[part], precision=torch.float32, slices=shared.slices
            ).backward()
    found = dict.fromkeys(KINDS, 0)
    for name in counter.seen:
        for kind, words in KINDS.items():
            found[kind] += any(word in name for word in words)
    return found


def _expected(case: Case, sizes: Mapping[str, int], num_slices: int) -> dict[str, int]:
    found = dict.fromkeys(KINDS, 0)
    for one in _plan(case, sizes, num_slices).collectives:
        found[one.op] += one.count
    return found


def _plan(case: Case, sizes: Mapping[str, int], num_slices: int) -> Plan:
    size = BATCHES["ragged"]
    with torch.device("meta"):
        declared = declare(case.model(), case.mesh)
    work = Work(
        batch_size=size,
        seq_len=CONTEXT,
        micro_batch_size=size // num_slices // PASSES,
        checkpointing=case.checkpointing,
    )
    return plan(declared, sizes, case.mesh.rules, work)


@torch.no_grad()
def _apart(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> float:
    """The largest difference, relative to the largest number of the tensor."""
    return max(
        float((other[name] - tensor).abs().max() / tensor.abs().max().clamp(min=1e-3)) for name, tensor in one.items()
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
