from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from clew.data.packing import Windows
from clew.errors import UserError
from clew.models.config import ModelConfig
from clew.models.decoder import Decoder
from clew.train import TrainingConfig
from clew.train.loop import Trainer

TOKENS = np.random.default_rng(0).integers(0, 30, 400).astype(np.uint16)


def decoder() -> nn.Module:
    return Decoder(ModelConfig(depth=2, width=16, heads=2), 30, 8)


def bigrams() -> nn.Module:
    """The smallest language model: compiling a decoder takes minutes here."""
    return nn.Sequential(nn.Embedding(30, 4), nn.SiLU(), nn.Linear(4, 30))


def trainer(build=decoder, **options) -> Trainer:
    torch.manual_seed(0)
    model = build()
    config = TrainingConfig(**{"steps": 20, "batch_size": 4, **options})
    return Trainer(model, Windows(TOKENS, 8), config, lr=0.01, total_steps=20, seed=5)


def gradients(trained: Trainer) -> list[torch.Tensor]:
    trained.step()
    return [parameter.grad.clone() for parameter in trained.model.parameters()]


def held(trained: Trainer) -> int:
    """Numbers that a forward pass keeps for the backward pass, parameters left out."""
    own, kept = {parameter.data_ptr() for parameter in trained.model.parameters()}, []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(0 if tensor.data_ptr() in own else tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        trained.model(torch.zeros(4, 8, dtype=torch.int64))
    return sum(kept)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_checkpointed_activations_give_bitwise_the_same_gradients(precision):
    plain, saving = (trainer(activation_checkpointing=value, precision=precision) for value in (False, True))
    for ours, theirs in zip(gradients(saving), gradients(plain), strict=True):
        assert torch.equal(ours, theirs)


def test_checkpointing_keeps_less_and_leaves_the_weights_names_alone():
    plain, saving = trainer(), trainer(activation_checkpointing=True)
    assert held(saving) < held(plain) / 2
    assert saving.model.state_dict().keys() == plain.model.state_dict().keys()
    assert saving.validate(Windows(TOKENS, 8)) == plain.validate(Windows(TOKENS, 8))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_a_compiled_model_has_the_same_gradients(monkeypatch):
    monkeypatch.setattr("torch._inductor.config.compile_threads", 1)
    plain, fast = trainer(bigrams), trainer(bigrams, compile=True)
    for ours, theirs in zip(gradients(fast), gradients(plain), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)
    assert fast.measure()["loss"] == pytest.approx(plain.measure()["loss"], rel=1e-5)


def test_a_machine_without_a_compiler_is_told(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError) as caught:
        trainer(compile=True)
    assert str(caught.value) == (
        "training.compile needs a C++ compiler, and there is no 'no-such-compiler' on this machine\n"
        "  install one, name it in the environment variable CXX, or set training.compile=false"
    )
