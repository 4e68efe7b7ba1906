from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from clew.config import Registry, dump, load
from clew.data.packing import Windows
from clew.errors import DataError
from clew.models.config import ModelConfig
from clew.models.decoder import Decoder
from clew.train import AdamWConfig, MuonConfig, TrainingConfig
from clew.train.loop import Trainer
from clew.train.optimizers import Optimizers, hidden_matrices, muon


def decoder(*, tied: bool = True, init: int = 0) -> Decoder:
    torch.manual_seed(init)
    return Decoder(ModelConfig(depth=1, width=16, heads=2, tied=tied), 30, 8)


def trainer(*, init: int = 0, **options) -> Trainer:
    tokens = np.random.default_rng(0).integers(0, 30, 400).astype(np.uint16)
    config = TrainingConfig(**{"steps": 20, "batch_size": 4, "optimizer": MuonConfig(), **options})
    return Trainer(decoder(init=init), Windows(tokens, 8), config, lr=0.01, total_steps=20, seed=5)


@pytest.mark.parametrize("tied", [True, False])
def test_muon_takes_the_hidden_matrices_and_adamw_the_rest(tied):
    model = decoder(tied=tied)
    hidden = {id(parameter) for parameter in hidden_matrices(model)}
    names = {name for name, parameter in model.named_parameters() if id(parameter) in hidden}
    blocks = {"attention.query", "attention.key", "attention.value", "attention.out", "mlp.gate", "mlp.up", "mlp.down"}
    assert names == {f"layers.0.{name}.weight" for name in blocks}
    optimizers = Optimizers(model, MuonConfig(), lr=0.1)
    model(torch.zeros(1, 4, dtype=torch.int64)).sum().backward()
    optimizers.step(0.1)
    state = optimizers.state()
    assert state.keys() == dict(model.named_parameters()).keys()
    assert all(("momentum_buffer" in kept) == (name in names) for name, kept in state.items())


def test_an_update_has_singular_values_of_about_one_and_the_size_of_adamws():
    model = decoder()
    matrix = model.layers[0].mlp.down.weight  # [16, 64]
    before = matrix.detach().clone()
    optimizer = muon(model, MuonConfig(weight_decay=0.0), lr=1.0)
    for parameter in hidden_matrices(model):
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    moved = (before - matrix.detach()) / (0.2 * math.sqrt(64))
    values = torch.linalg.svdvals(moved)
    # The iteration's coefficients trade exactness for speed: it leaves singular values between about 0.7 and 1.2.
    assert 0.6 < values.min() < values.max() < 1.3
    u, _, v = torch.linalg.svd(matrix.grad, full_matrices=False)
    assert torch.nn.functional.cosine_similarity(moved.flatten(), (u @ v).flatten(), dim=0) > 0.97


def test_the_learning_rate_factor_is_muons_alone():
    def moved(factor: float) -> dict[str, torch.Tensor]:
        model = decoder()
        optimizers = Optimizers(model, MuonConfig(lr_factor=factor, weight_decay=0.0), lr=0.1)
        before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        model(torch.arange(8)[None]).square().sum().backward()
        optimizers.step(1e-3)
        return {name: (parameter.detach() - before[name]).norm() for name, parameter in model.named_parameters()}

    once, thrice = moved(1.0), moved(3.0)
    hidden = {name for name in once if "attention." in name or "mlp." in name}
    for name in once:
        assert (thrice[name] / once[name]).item() == pytest.approx(3.0 if name in hidden else 1.0, rel=1e-3), name


def test_a_pattern_is_learned_with_muon():
    pattern = Windows(np.tile(np.arange(10, dtype=np.uint16), 40), 8)
    trained = Trainer(
        decoder(),
        pattern,
        TrainingConfig(steps=80, batch_size=4, optimizer=MuonConfig()),
        lr=0.01,
        total_steps=80,
        seed=5,
    )
    for _ in range(80):
        trained.step()
    assert trained.validate(pattern) < 0.1


def test_a_resumed_run_with_muon_is_bitwise_the_uninterrupted_one(tmp_path):
    straight, first, resumed = trainer(), trainer(), trainer(init=3)
    for _ in range(7):
        first.step()
    first.save(tmp_path)
    resumed.load(tmp_path)
    for _ in range(13):
        resumed.step()
    for _ in range(20):
        straight.step()
    for ours, theirs in zip(resumed.model.parameters(), straight.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    for name, kept in straight.optimizers.state().items():
        assert all(torch.equal(value, resumed.optimizers.state()[name][key]) for key, value in kept.items()), name


def test_the_state_of_another_model_is_refused():
    state = trainer().optimizers.state()
    state["odd"] = state.pop("norm.weight")
    with pytest.raises(DataError, match=r"of another model: norm.weight, odd"):
        trainer().optimizers.load(state)


def test_a_config_without_a_type_is_adamw_and_muon_is_named():
    def loaded(optimizer):
        return load({"optimizer": optimizer}, root=TrainingConfig, registries={}).value.optimizer

    assert loaded({"beta2": 0.9}) == AdamWConfig(beta2=0.9)
    assert loaded({"type": "muon", "adamw": {"beta1": 0.8}}) == MuonConfig(adamw=AdamWConfig(beta1=0.8))
    config = TrainingConfig(optimizer=MuonConfig(momentum=0.9))
    assert load(dump(config), root=TrainingConfig, registries={"task": Registry("task", {})}).value == config


def test_matrices_that_declare_no_axes_are_refused():
    with pytest.raises(ValueError, match=r"parameter 'weight' declares no logical axes"):
        Optimizers(torch.nn.Linear(2, 2, bias=False), MuonConfig(), lr=0.1)
