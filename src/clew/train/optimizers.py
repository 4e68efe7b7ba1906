"""AdamW over a model, and its state under the parameters' names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from clew.train.config import AdamWConfig


def adamw(model: nn.Module, config: AdamWConfig, *, lr: float) -> AdamW:
    """Build AdamW with two groups: matrices with weight decay; vectors (norm gains, biases) without."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in parameters if parameter.dim() >= 2]
    vectors = [parameter for parameter in parameters if parameter.dim() < 2]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return AdamW(
        [group for group in groups if group["params"]],
        lr=lr,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        fused=True,
    )


def set_lr(optimizer: Optimizer, lr: float) -> None:
    """Use this learning rate from the next update on."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def optimizer_state(optimizer: Optimizer, model: nn.Module) -> dict[str, dict[str, Tensor]]:
    """Return the optimizer's tensors by parameter name; PyTorch's own state has positions, which say nothing."""
    return {name: dict(optimizer.state[parameter]) for name, parameter in _trained(optimizer, model).items()}


def load_optimizer_state(optimizer: Optimizer, model: nn.Module, state: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Take over what :func:`optimizer_state` returned.

    Raises:
        ValueError: If it is the state of other parameters.
    """
    trained = _trained(optimizer, model)
    if trained.keys() != state.keys():
        odd = sorted(trained.keys() ^ state.keys())
        raise ValueError(f"the optimizer state is of another model: {', '.join(odd[:3])}")
    name_of = {id(parameter): name for name, parameter in trained.items()}
    in_order = [name_of[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]
    numbered: dict[str, Any] = optimizer.state_dict()
    numbered["state"] = {index: dict(state[name]) for index, name in enumerate(in_order) if state[name]}
    optimizer.load_state_dict(numbered)


def _trained(optimizer: Optimizer, model: nn.Module) -> dict[str, nn.Parameter]:
    inside = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    return {name: parameter for name, parameter in model.named_parameters() if id(parameter) in inside}
