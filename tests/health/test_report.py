"""What a report says of models that are well, and of models with something planted in them."""

from __future__ import annotations

import copy
import json
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from clew.checkpoints.digest import state_digest
from clew.checkpoints.rng import rng_state
from clew.health.clock import StepClock
from clew.health.probe import HealthProbe
from clew.health.report import health_report
from clew.models.config import ModelConfig
from clew.models.decoder import Decoder


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4, bias=False))


def train(model, optimizer, steps=4):
    """Train on noise; return the weights before the last step."""
    before = []
    for _ in range(steps):
        before = [parameter.detach().clone() for parameter in model.parameters()]
        optimizer.zero_grad()
        model(torch.randn(5, 8)).square().mean().backward()
        optimizer.step()
    return before


def layers(report):
    return report["numerics"]["layers"]


def texts(report):
    return [finding["text"] for finding in report["findings"]]


@pytest.fixture(scope="module")
def decoder():
    """A tiny decoder after forty steps, its optimizer, its last batch, and what was noted on the way."""
    torch.manual_seed(0)
    model = Decoder(ModelConfig(depth=2), 16, 16)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    now = [0.0]
    probe = HealthProbe(clock=lambda: now[0])
    for _ in range(40):
        with probe.data():
            tokens = torch.randint(0, 16, (4, 16))
        loss = F.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        now[0] += 0.02
        probe.step_done(loss, tokens.numel())
    return model, optimizer, tokens, probe


def report_of(decoder, **more):
    model, optimizer, tokens, probe = decoder
    return probe.report(model, optimizer, forward=lambda: model(tokens), data={"seed": 7}, step=40, **more)


def test_a_healthy_decoder_is_well(decoder):
    report = report_of(decoder)
    assert (report["verdict"], report["findings"]) == ("well", [])
    assert report["losses"]["count"] == 40
    assert report["losses"]["newest"] < 2
    assert len(layers(report)) == 20
    assert all(0 < layer["ratio"] < 0.1 and layer["updates"] == 40 for layer in layers(report).values())
    assert report["throughput"]["tokens_per_second"] == pytest.approx(64 / 0.02)
    assert report["determinism"]["data"] == {"seed": 7}
    assert report["distribution"] is None
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_everything_comes_in_one_transfer(decoder, monkeypatch):
    fetched = []
    for name in ("cpu", "item", "tolist", "numpy", "__bool__", "__float__", "__int__", "__index__"):
        monkeypatch.setattr(torch.Tensor, name, counting(fetched, name, getattr(torch.Tensor, name)))
    model, optimizer, tokens, probe = decoder
    monkeypatch.setattr("clew.health.collecting.at_hand", lambda tensor: False)  # as on a GPU
    # Not the generators: the states of those of the CPU are on the CPU.
    monkeypatch.setattr("clew.health.activations.kept_rng", lambda: torch.no_grad())
    probe.report(model, optimizer, forward=lambda: model(tokens), step=40)
    assert fetched == ["cpu", "tolist"]


def counting(calls, name, method):
    def counted(self, *args, **options):
        calls.append(name)
        return method(self, *args, **options)

    return counted


def test_looking_changes_nothing(decoder):
    model, optimizer, _, _ = decoder
    state = [model.state_dict(), optimizer.state_dict(), [parameter.grad for parameter in model.parameters()]]
    before, generators = state_digest(state), rng_state()
    report_of(decoder)
    assert state_digest(state) == before
    assert state_digest(rng_state()) == state_digest(generators)
    assert model.training


def test_an_optimizer_that_has_made_no_step_keeps_its_empty_state():
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters())
    report = health_report(model, optimizer)
    assert dict(optimizer.state) == {}
    first = layers(report)["0"]
    assert (first["gradient"], first["ratio"], first["updates"]) == (None, None, None)
    assert first["weight"] > 1
    assert (report["numerics"]["gradient_norm"], report["numerics"]["gradient_from"]) == (None, None)
    assert report["verdict"] == "well"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_named_with_its_layer(decoder, value):
    model, optimizer = copy.deepcopy(decoder[:2])
    with torch.no_grad():
        model.layers[1].mlp.gate.weight[3, :2] = value
    report = health_report(model, optimizer)
    kind = "nan" if math.isnan(value) else "inf"
    assert report["numerics"]["not_finite"] == {"layers.1.mlp.gate": {"weights": {"nan": 0, "inf": 0} | {kind: 2}}}
    assert report["verdict"] == "bad"
    what = "2 NaN" if math.isnan(value) else "2 infinite"
    assert texts(report)[0].startswith(f"weights are not finite ({what}) in layers.1.mlp.gate; put it back")
    assert layers(report)["layers.1.mlp.gate"]["weight"] == kind
    json.dumps(report, allow_nan=False)


def test_what_the_optimizer_remembers_is_looked_at_as_well():
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters())
    train(model, optimizer)
    optimizer.state[model[2].weight]["exp_avg_sq"][0, 0] = math.inf
    report = health_report(model, optimizer)
    assert report["numerics"]["not_finite"] == {"2": {"optimizer": {"nan": 0, "inf": 1}}}
    assert texts(report) == [
        "values of the optimizer are not finite (1 infinite) in 2; clew reset RUN --optimizer forgets them"
    ]


def test_a_gradient_that_was_left_out_is_told_apart_from_one_that_will_be_used():
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(5, 8)).square().mean().backward()
    model[0].bias.grad[1] = math.nan
    assert health_report(model, optimizer)["verdict"] == "bad"
    train(model, optimizer)
    model[0].bias.grad[1] = math.inf
    report = health_report(model, optimizer)
    assert report["verdict"] == "look"
    (text,) = texts(report)
    what = "gradients are not finite (1 infinite) in 0, and that step was left out"
    assert text == f"{what}; now and then that is usual with float16"


def test_running_statistics_count_as_weights_and_masks_do_not():
    model = nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4))
    model.register_buffer("mask", torch.full((3,), -math.inf))
    assert health_report(model)["verdict"] == "well"
    model[1].running_var[0] = math.nan
    assert list(health_report(model)["numerics"]["not_finite"]) == ["1"]


OPTIMIZERS = {
    "sgd": lambda model: torch.optim.SGD(model.parameters(), lr=0.1),
    "momentum": lambda model: torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
    "dampened": lambda model: torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, dampening=0.5),
    "nesterov": lambda model: torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda model: torch.optim.Adam(model.parameters(), lr=0.01),
    "adamw": lambda model: torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.0, fused=True),
    "amsgrad": lambda model: torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.0, amsgrad=True),
    "capturable": lambda model: torch.optim.AdamW(model.parameters(), lr=torch.tensor(0.01), weight_decay=0.0),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_update_is_what_the_weights_have_moved_by(name):
    model = mlp()
    optimizer = OPTIMIZERS[name](model)
    before = train(model, optimizer)
    last = model[2].weight
    moved = ((last - before[-1]).norm() / last.norm()).item()
    assert layers(health_report(model, optimizer))["2"]["ratio"] == pytest.approx(moved, rel=1e-4)


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("scale", ["original", "match_rms_adamw"])
def test_the_update_of_muon_is_made_once_more(nesterov, scale):
    model = nn.Sequential(nn.Linear(8, 16, bias=False), nn.Tanh(), nn.Linear(16, 4, bias=False))
    optimizer = torch.optim.Muon(model.parameters(), lr=0.02, weight_decay=0.0, nesterov=nesterov, adjust_lr_fn=scale)
    before = train(model, optimizer)
    report = health_report(model, optimizer)
    for name, parameter, old in zip(("0", "2"), model.parameters(), before, strict=True):
        moved = ((parameter - old).norm() / parameter.norm()).item()
        assert layers(report)[name]["ratio"] == pytest.approx(moved, rel=1e-4)


def test_an_update_that_the_state_does_not_tell_is_none():
    model = mlp()
    optimizer = torch.optim.RMSprop(model.parameters())
    train(model, optimizer)
    assert layers(health_report(model, optimizer))["2"]["ratio"] is None
    plain = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    train(model, plain)
    plain.zero_grad()
    assert layers(health_report(model, plain))["2"]["ratio"] is None


@pytest.mark.parametrize("name", ["momentum", "dampened", "adamw", "muon"])
def test_a_gradient_that_is_gone_is_told_from_the_first_moment(name):
    torch.manual_seed(0)
    model = nn.Linear(8, 4, bias=False)
    make = {**OPTIMIZERS, "muon": lambda model: torch.optim.Muon(model.parameters(), lr=0.0)}[name]
    optimizer = make(model)
    constant = torch.randn(4, 8)
    for _ in range(300):  # until the moment of a gradient that never changes is that gradient
        model.weight.grad = constant.clone()
        optimizer.step()
    assert health_report(model, optimizer)["numerics"]["gradient_from"] == "grad"
    optimizer.zero_grad()
    numerics = health_report(model, optimizer)["numerics"]
    assert numerics["gradient_from"] == "first moment"
    assert numerics["gradient_norm"] == pytest.approx(constant.norm().item(), rel=1e-4)


def test_an_update_that_is_too_large_is_found(decoder):
    model, optimizer = copy.deepcopy(decoder[:2])
    for group in optimizer.param_groups:
        group["lr"] = 2.0
    report = health_report(model, optimizer)
    assert report["verdict"] == "bad"
    assert texts(report)[0].startswith("a step moves ")
    assert "(20 layers are above 0.1), where 0.001 is usual; lower lr, or warm it up" in texts(report)[0]


def test_weights_that_begin_at_zero_are_no_alarm_in_their_first_steps():
    model = mlp()
    nn.init.zeros_(model[2].weight)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(2):
        optimizer.zero_grad()
        (model(torch.randn(5, 8)) - 1).square().mean().backward()
        optimizer.step()
    report = health_report(model, optimizer)
    assert layers(report)["2"]["ratio"] > 0.4
    assert report["verdict"] == "well"


def test_a_layer_that_no_gradient_reaches_is_named():
    model = nn.ModuleDict({"used": nn.Linear(8, 4), "lost": nn.Linear(8, 4), "frozen": nn.Linear(8, 4)})
    model["frozen"].requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters())
    model["used"](torch.randn(2, 8)).sum().backward()
    optimizer.step()
    report = health_report(model, optimizer)
    assert texts(report) == ["no gradient reaches lost; is it used, and meant to be trained?"]
    assert list(layers(report)) == ["used", "lost"]


def test_optimizers_are_looked_at_through_their_wrappers():
    class Wrapped(torch.optim.Optimizer):
        def __init__(self, optimizer):
            self.optimizer = optimizer

    model = mlp()
    first, second = (torch.optim.AdamW(part.parameters(), lr=0.01) for part in (model[0], model[2]))
    train(model, first)
    train(model, second)
    report = health_report(model, [Wrapped(first), Wrapped(Wrapped(second))])
    assert [layer["updates"] for layer in layers(report).values()] == [4, 4]


def test_tied_weights_are_counted_once_and_names_are_those_of_the_model_inside():
    model = nn.ModuleDict({"embed": nn.Embedding(5, 3), "head": nn.Linear(3, 5, bias=False)})
    model["head"].weight = model["embed"].weight
    assert list(layers(health_report(model))) == ["embed"]
    assert list(layers(health_report(nn.ModuleDict({"_orig_mod": model})))) == ["embed"]


def test_weights_that_are_not_here_are_left_out():
    model = nn.ModuleDict({"elsewhere": nn.Linear(2, 2, device="meta"), "here": nn.Linear(2, 2)})
    assert list(layers(health_report(model))) == ["here"]


def test_sparse_gradients_and_half_precision_are_taken():
    embedding = nn.Embedding(10, 4, sparse=True)
    embedding(torch.tensor([1, 1, 3])).sum().backward()
    assert layers(health_report(embedding))["weight"]["gradient"] == pytest.approx(math.sqrt(4 * (2**2 + 1)))
    half = nn.Linear(64, 64, bias=False).half()
    nn.init.constant_(half.weight, 300.0)  # whose square float16 does not hold
    assert layers(health_report(half))["weight"]["weight"] == 300.0 * 64


@pytest.mark.parametrize(
    "losses", [[2.0] * 30 + [30.0], [torch.tensor(2.0)] * 30 + [30.0], torch.tensor([2.0] * 30 + [30.0])]
)
def test_losses_may_be_numbers_or_tensors(losses):
    report = health_report(mlp(), losses=losses, step=50)
    assert report["losses"]["spikes"] == [{"step": 50, "value": 30.0, "usual": 2.0}]
    assert texts(report) == ["the loss jumped from 2 to 30 at step 50, and came back; look at that batch"]


def test_a_probe_keeps_the_loss_of_the_step_and_not_the_tensor():
    probe, total = HealthProbe(), torch.tensor(1.0)
    probe.step_done(total)
    total += 5
    probe.step_done(3)
    assert probe.report(mlp())["losses"]["newest"] == 3
    assert probe.report(mlp())["losses"]["count"] == 2
    assert [float(loss) for loss in probe.clock.losses] == [1.0, 3.0]


def test_looking_is_no_part_of_a_step():
    now = [0.0]
    probe = HealthProbe(clock=lambda: now[0])
    probe.step_done()
    probe.report(mlp(), forward=lambda: now.__setitem__(0, now[0] + 50))
    now[0] += 2
    probe.step_done()
    assert [step.seconds for step in probe.clock.steps] == [2.0]


def test_without_a_clock_nothing_is_said_of_time():
    assert health_report(mlp())["throughput"] is None
    assert health_report(mlp(), timings=StepClock())["throughput"]["median_seconds"] is None


def test_the_switches_of_determinism_are_told():
    found = health_report(mlp(), data={"seed": 3, "sampler": "feistel"})["determinism"]
    assert found["data"] == {"seed": 3, "sampler": "feistel"}
    assert (found["device"], found["dtypes"], found["nondeterministic"]) == ("cpu", ["float32"], [])
    assert (found["deterministic_algorithms"], found["threads"]) == (False, torch.get_num_threads())
    assert found["cudnn_benchmark"] is None
