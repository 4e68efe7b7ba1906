from __future__ import annotations

import pytest
import torch
from torch import nn

from clew.train.config import AdamWConfig
from clew.train.optimizers import adamw, load_optimizer_state, optimizer_state, set_lr


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2, bias=False))


def train(trained: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for number in range(steps):
        optimizer.zero_grad()
        trained(torch.full((2, 3), float(number))).square().sum().backward()
        optimizer.step()


def test_vectors_do_not_decay():
    trained = model()
    decays = {
        id(parameter): group["weight_decay"]
        for group in adamw(trained, AdamWConfig(weight_decay=0.3), lr=0.1).param_groups
        for parameter in group["params"]
    }
    for parameter in trained.parameters():
        assert decays[id(parameter)] == (0.3 if parameter.dim() >= 2 else 0.0)


def test_frozen_parameters_are_left_out():
    trained = model()
    trained[0].weight.requires_grad_(False)
    assert "0.weight" not in optimizer_state(adamw(trained, AdamWConfig(), lr=0.1), trained)


def test_one_update_is_adamw():
    trained = nn.Linear(1, 1, bias=False)
    nn.init.constant_(trained.weight, 2.0)
    optimizer = adamw(trained, AdamWConfig(weight_decay=0.5), lr=0.1)
    trained.weight.grad = torch.tensor([[3.0]])
    optimizer.step()
    # The first update is lr * sign(gradient), after the weight has lost lr * weight_decay of itself.
    assert trained.weight.item() == pytest.approx(2.0 * (1 - 0.1 * 0.5) - 0.1)


def test_the_learning_rate_reaches_every_group():
    optimizer = adamw(model(), AdamWConfig(), lr=0.1)
    set_lr(optimizer, 0.05)
    assert [group["lr"] for group in optimizer.param_groups] == [0.05, 0.05]


def test_state_goes_by_name_and_continues_bitwise():
    straight, first, second = model(), model(), model()
    one, two, three = (adamw(trained, AdamWConfig(), lr=0.01) for trained in (straight, first, second))
    train(straight, one, 5)
    train(first, two, 5)
    second.load_state_dict(first.state_dict())
    state = optimizer_state(two, first)
    assert state.keys() == dict(first.named_parameters()).keys()
    load_optimizer_state(three, second, state)
    train(straight, one, 5)
    train(second, three, 5)
    for ours, theirs in zip(second.parameters(), straight.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_state_before_the_first_update_loads():
    trained = model()
    optimizer = adamw(trained, AdamWConfig(), lr=0.1)
    load_optimizer_state(optimizer, trained, optimizer_state(optimizer, trained))


def test_the_state_of_another_model_is_refused():
    trained = model()
    optimizer = adamw(trained, AdamWConfig(), lr=0.1)
    state = optimizer_state(optimizer, trained)
    state["3.weight"] = state.pop("2.weight")
    with pytest.raises(ValueError, match=r"of another model: 2.weight, 3.weight"):
        load_optimizer_state(optimizer, trained, state)
