"""Dead and saturated units, in the layers of PyTorch, of our decoder and of Transformers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from clew.health.activations import SLOPES, evaluating
from clew.health.report import health_report
from clew.models.config import ModelConfig
from clew.models.decoder import Decoder


def layers(model, forward):
    return health_report(model, forward=forward)["activations"]["layers"]


def classifier(nonlinearity, width=6):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, width), nonlinearity, nn.Linear(width, 2))


MODULES = {
    "GELU": nn.GELU(),
    "SiLU": nn.SiLU(),
    "Mish": nn.Mish(),
    "ELU": nn.ELU(),
    "Softplus": nn.Softplus(),
    "Sigmoid": nn.Sigmoid(),
    "Tanh": nn.Tanh(),
}


@pytest.mark.parametrize("name", MODULES)
def test_a_bound_is_where_the_slope_is_one_percent(name):
    slope = SLOPES[name]
    for bound in [slope.low] + ([slope.high] if slope.has_two_ends else []):
        x = torch.tensor(bound, dtype=torch.float64, requires_grad=True)
        MODULES[name](x).backward()
        assert abs(x.grad.item()) == pytest.approx(0.01, rel=2e-3)


@pytest.mark.parametrize("inplace", [False, True])
def test_a_dead_layer_is_found_and_named(inplace):
    model = classifier(nn.ReLU(inplace))
    nn.init.constant_(model[0].bias, -100.0)
    report = health_report(model, forward=lambda: model(torch.randn(64, 4)))
    assert report["activations"]["layers"] == {"1": {"units": 6, "dead": 6, "flat": 1.0}}
    assert report["verdict"] == "bad"
    assert report["findings"][0]["text"] == ("6 of 6 units of 1 are never active over a batch; lower lr, or warm it up")


def test_single_dead_units_are_counted():
    model = classifier(nn.ReLU())
    with torch.no_grad():
        model[0].bias[:2] = -100.0
    found = layers(model, lambda: model(torch.randn(256, 4)))["1"]
    assert (found["dead"], found["units"]) == (2, 6)
    assert 2 / 6 < found["flat"] < 1


@pytest.mark.parametrize(("nonlinearity", "kind"), [(nn.Tanh(), "saturated"), (nn.Sigmoid(), "saturated")])
def test_units_at_either_end_are_saturated(nonlinearity, kind):
    model = classifier(nonlinearity)
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].bias.copy_(torch.tensor([50.0, -50.0, 0.1, 0.2, -0.3, 0.0]))
    assert layers(model, lambda: model(torch.randn(8, 4)))["1"] == {"units": 6, kind: 2, "flat": pytest.approx(1 / 3)}


def test_units_of_images_are_channels():
    model = nn.Sequential(nn.Conv2d(1, 5, 3), nn.ReLU())
    with torch.no_grad():
        model[0].bias.copy_(torch.tensor([-100.0, 100.0, 100.0, 100.0, 100.0]))
    assert layers(model, lambda: model(torch.randn(2, 1, 6, 6)))["1"]["units"] == 5
    assert layers(model, lambda: model(torch.randn(2, 1, 6, 6)))["1"]["dead"] == 1


def test_a_layer_that_is_called_twice_is_awake_if_it_was_once():
    relu = nn.ReLU()
    wrapped = nn.ModuleList([relu])

    def forward():
        relu(torch.tensor([[-1.0, 1.0, -1.0]]))
        relu(torch.tensor([[1.0, -1.0, -1.0]]))

    assert layers(wrapped, forward)["0"] == {"units": 3, "dead": 1, "flat": pytest.approx(2 / 3)}


def test_the_gates_of_our_decoder_are_looked_at_without_a_module_for_them():
    torch.manual_seed(0)
    model = Decoder(ModelConfig(depth=2), 16, 8)
    tokens = torch.randint(0, 16, (2, 8))
    assert {name: one["dead"] for name, one in layers(model, lambda: model(tokens)).items()} == {
        "layers.0.mlp": 0,
        "layers.1.mlp": 0,
    }
    with torch.no_grad():  # inputs of norm sqrt(width) against their negative
        model.layers[1].mlp_norm.weight.zero_()
        model.layers[1].mlp.gate.register_forward_hook(lambda module, args, output: output - 30)
    assert layers(model, lambda: model(tokens))["layers.1.mlp"]["dead"] == model.shape.mlp_width


@pytest.mark.parametrize("family", ["Llama", "Qwen3", "GPT2"])
def test_mlps_of_transformers_are_looked_at(family):
    import transformers

    sizes = {
        "GPT2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 16},
        "Llama": {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2},
    }
    options = sizes.get(family, {**sizes["Llama"], "num_key_value_heads": 2, "head_dim": 8}) | {"vocab_size": 16}
    model = getattr(transformers, f"{family}LMHeadModel" if family == "GPT2" else f"{family}ForCausalLM")(
        getattr(transformers, f"{family}Config")(**options, bos_token_id=0, eos_token_id=1)
    )
    found = layers(model, lambda: model(torch.randint(0, 16, (2, 8))))
    assert len(found) == 2
    assert all(one["units"] == (64 if family == "GPT2" else 24) and one["dead"] == 0 for one in found.values())


def test_nothing_of_the_look_remains():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Dropout(0.5))
    model[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    generator = torch.get_rng_state()
    seen = []
    health_report(model, forward=lambda: seen.append(model(torch.randn(8, 4)).requires_grad))
    assert seen == [False]
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_forward_that_fails_leaves_nothing_behind_either():
    model = classifier(nn.ReLU())

    def broken():
        model(torch.randn(2, 4))
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        health_report(model, forward=broken)
    assert model.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_without_a_batch_nothing_is_said_of_activations():
    assert health_report(classifier(nn.ReLU()))["activations"] is None


def test_modules_come_back_into_their_own_mode():
    model = classifier(nn.Dropout())
    model[1].eval()
    with evaluating(model):
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model] == [True, False, True]
