"""Bytes, collectives and warnings of a mesh that nobody has started."""

from __future__ import annotations

import math

import pytest
import torch

from clew.models.config import ModelConfig
from clew.models.decoder import Decoder
from clew.sharding import MeshConfig
from clew.sharding.parallel import declare
from clew.sharding.plan import plan
from clew.sharding.work import Work, activation_bytes

ALONE = {"data": 1, "fsdp": 1, "tensor": 1}


def declared(vocab: int = 512, context: int = 64, **sizes):
    with torch.device("meta"):
        return declare(Decoder(ModelConfig(**sizes), vocab, context), MeshConfig())


def planned(mesh: MeshConfig, devices: int, work: Work | None = None, **sizes):
    return plan(declared(**sizes), mesh.sizes(devices), mesh.rules, work or Work())


def test_sharded_weights_gradients_and_moments_are_an_eighth_on_each_of_eight_devices():
    alone, shared = planned(MeshConfig(), 1, depth=4), planned(MeshConfig(preset="fsdp"), 8, depth=4)
    assert alone.memory.weights == 4 * alone.num_parameters
    for what in ("weights", "gradients", "optimizer"):
        assert getattr(shared.memory, what) * 8 == getattr(alone.memory, what)
    assert alone.memory.optimizer == 2 * alone.memory.weights
    assert (alone.memory.gathered, alone.collectives, alone.warnings) == (0, (), ())


def test_muon_keeps_one_number_of_a_hidden_matrix():
    found = planned(MeshConfig(), 1, Work(optimizer="muon"), depth=2)
    hidden = sum(math.prod(one.shape) for one in found.parameters if len(one.shape) == 2 and "vocab" not in one.axes)
    assert found.memory.optimizer == 4 * (2 * found.num_parameters - hidden)


def test_a_thousand_devices_are_planned_like_eight():
    mesh = MeshConfig(preset="hsdp", data=-1, fsdp=8)
    eight, thousand = planned(mesh, 8, depth=12), planned(mesh, 1024, Work(batch_size=1024), depth=12)
    assert thousand.sizes == {"data": 128, "fsdp": 8, "tensor": 1}
    assert thousand.memory.weights == eight.memory.weights
    assert [one.op for one in thousand.collectives] == ["all-gather", "reduce-scatter", "all-reduce"]


def test_layers_are_gathered_twice_and_scattered_once_in_each_pass():
    found = planned(MeshConfig(preset="fsdp"), 2, Work(batch_size=32, micro_batch_size=4), depth=3)
    gather, scatter = found.collectives
    layers = 4 * sum(math.prod(one.shape) for one in found.parameters if one.name.startswith("layers."))
    rest = 4 * found.num_parameters - layers
    passes = 4
    assert (gather.op, gather.count, gather.bytes) == ("all-gather", passes * 7, passes * (2 * layers + rest))
    assert (scatter.op, scatter.count, scatter.bytes) == ("reduce-scatter", passes * 4, passes * (layers + rest))
    assert scatter.sent == scatter.bytes // 2


def test_replicas_add_up_their_gradients_in_buckets():
    (found,) = planned(MeshConfig(preset="ddp"), 4, depth=12).collectives
    total = 4 * planned(MeshConfig(), 1, depth=12).num_parameters
    assert (found.op, found.axis, found.bytes, found.sent) == ("all-reduce", "data", total, round(total * 1.5))
    assert found.count == pytest.approx(total / (25 << 20), abs=3)


def test_the_estimate_of_activations_is_what_a_pass_keeps():
    torch.manual_seed(0)
    config, vocab, context, batch = ModelConfig(depth=3), 300, 64, 4
    model = Decoder(config, vocab, context)
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        tokens = torch.randint(0, vocab, (batch, context))
        loss = torch.nn.functional.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten())
    gradient_of_logits = 4 * batch * context * vocab
    work = Work(batch_size=batch, seq_len=context)
    estimate = activation_bytes(declare(model, MeshConfig()), ALONE, MeshConfig().rules, work)
    assert loss.isfinite()
    assert sum(kept.values()) + gradient_of_logits == pytest.approx(estimate, rel=0.1)


def test_tensor_parallel_and_checkpointing_keep_less():
    model, rules = declared(depth=4), MeshConfig(preset="tp").rules
    whole = activation_bytes(model, ALONE, rules, Work())
    assert activation_bytes(model, ALONE | {"tensor": 2}, rules, Work()) < whole
    assert activation_bytes(model, ALONE, rules, Work(checkpointing=True)) < whole
    assert activation_bytes(model, ALONE, rules, Work(micro_batch_size=8)) == whole // 4


def test_a_split_stream_and_split_logits_keep_less():
    model, mesh = declared(depth=4), {"data": 1, "fsdp": 1, "tensor": 2}
    kept = [
        activation_bytes(model, mesh, MeshConfig(preset="tp", compute=rules).rules, Work())
        for rules in ({}, {"logits": "tensor"}, {"seq": "tensor"}, {"seq": "tensor", "logits": "tensor"})
    ]
    assert kept == sorted(kept, reverse=True)
    assert len(set(kept)) == 4
    assert kept[0] - kept[1] == kept[2] - kept[3] == 32 * 128 * 2 * 4 * 512 // 2


@pytest.mark.parametrize(
    ("mesh", "devices", "work", "sizes", "warning"),
    [
        (MeshConfig(preset="ddp"), 8, Work(batch_size=12), {}, "a batch of 12 does not divide by data x fsdp = 8"),
        (MeshConfig(preset="ddp"), 8, Work(batch_size=6), {}, "a batch of 6 leaves 2 of data x fsdp = 8 slices empty"),
        (MeshConfig(preset="tp"), 2, Work(), {"vocab": 513}, "embed.weight [513, 256] does not divide"),
        (MeshConfig(preset="fsdp"), 8, Work(), {"depth": 1}, "layers.* has 24640 bytes on a device: shards are tiny"),
        (
            MeshConfig(preset="tp", at_rest={"vocab": None}, compute={"vocab": None}),
            2,
            Work(),
            {"vocab": 100_000},
            "embed.weight is whole on every device, with 97 MiB",
        ),
        (MeshConfig(preset="fsdp", data=-1), 4, Work(), {}, "fsdp has one device, so nothing is split over it"),
        (MeshConfig(preset="fsdp+tp"), 2, Work(), {}, "fsdp has one device, so nothing is split over it"),
    ],
)
def test_what_looks_wrong_is_said(mesh, devices, work, sizes, warning):
    found = planned(mesh, devices, work, **{"depth": 4, **sizes}).warnings
    assert any(line.startswith(warning) for line in found), found
