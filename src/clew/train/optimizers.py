"""Optimizers over a model, and their state under the parameters' names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim import AdamW, Muon, Optimizer

from clew.errors import DataError
from clew.models.axes import logical_axes
from clew.train.config import AdamWConfig, MuonConfig, OptimizerConfig

_MOMENTS: dict[type[Optimizer], set[str]] = {AdamW: {"exp_avg"}, Muon: {"momentum_buffer"}}
"""By which of their tensors the states of optimizers are told apart."""

_ADJUSTMENTS = {"adamw": "match_rms_adamw", "spectral": "original"}


class Optimizers:
    """One or several optimizers that share the parameters of a model among them.

    Args:
        model: The model.
        config: Which, and their constants.
        lr: Learning rate of AdamW; Muon's is `lr_factor` times as much.
    """

    def __init__(self, model: nn.Module, config: OptimizerConfig, *, lr: float) -> None:
        self._model = model
        self._parts: list[tuple[Optimizer, float]] = []
        if isinstance(config, AdamWConfig):
            self._parts.append((adamw(model, config, lr=lr), 1.0))
            return
        hidden = {id(parameter) for parameter in hidden_matrices(model)}
        rest = [parameter for parameter in model.parameters() if id(parameter) not in hidden]
        self._parts.append((muon(model, config, lr=lr), config.lr_factor))
        self._parts.append((adamw(rest, config.adamw, lr=lr), 1.0))

    @property
    def all(self) -> list[Optimizer]:
        """PyTorch's optimizers, each of which has a part of the parameters."""
        return [optimizer for optimizer, _ in self._parts]

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for optimizer, _ in self._parts:
            optimizer.zero_grad(set_to_none=True)

    def step(self, lr: float) -> None:
        """Update all parameters with this learning rate."""
        for optimizer, factor in self._parts:
            set_lr(optimizer, lr * factor)
            optimizer.step()

    @property
    def weight_decay(self) -> float:
        """The pull of matrices toward zero."""
        return float(next(self._decaying())["weight_decay"])

    @weight_decay.setter
    def weight_decay(self, value: float) -> None:
        for group in self._decaying():
            group["weight_decay"] = value

    def _decaying(self) -> Iterator[dict[str, Any]]:
        """The groups of matrices; vectors never decay."""
        for optimizer, _ in self._parts:
            yield from (group for group in optimizer.param_groups if group["params"][0].dim() >= 2)

    def state(self) -> dict[str, dict[str, Tensor]]:
        """Return the tensors of all optimizers by parameter name; see :func:`optimizer_state`."""
        found: dict[str, dict[str, Tensor]] = {}
        for optimizer, _ in self._parts:
            found |= optimizer_state(optimizer, self._model)
        return found

    def check(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Check that :meth:`load` would take a state.

        Raises:
            DataError: If it is the state of other parameters, or of another optimizer.
        """
        parts = [(optimizer, _trained(optimizer, self._model).keys()) for optimizer, _ in self._parts]
        if odd := sorted(set().union(*(names for _, names in parts)) ^ state.keys()):
            raise DataError(f"the optimizer state is of another model: {', '.join(odd[:3])}")
        for optimizer, names in parts:
            known = _MOMENTS[type(optimizer)]
            if odd := sorted(name for name in names if state[name] and not known & state[name].keys()):
                own = type(optimizer).__name__
                raise DataError(
                    f"the optimizer state is of another optimizer than {own}: {', '.join(odd[:3])}",
                    hint="a run goes on with the optimizer that it began with",
                )

    def load(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Take over what :meth:`state` returned.

        Raises:
            DataError: If it is the state of other parameters, or of another optimizer.
        """
        self.check(state)
        for optimizer, _ in self._parts:
            names = _trained(optimizer, self._model)
            load_optimizer_state(optimizer, self._model, {name: state[name] for name in names})

    def forget(self) -> None:
        """Drop all moments, as if no step had been made."""
        for optimizer, _ in self._parts:
            optimizer.state.clear()


def adamw(model: nn.Module | Sequence[nn.Parameter], config: AdamWConfig, *, lr: float) -> AdamW:
    """Build AdamW with two groups: matrices with weight decay; vectors (norm gains, biases) without.

    Args:
        model: A model, or the parameters to take.
        config: The constants.
        lr: Learning rate.
    """
    everything = model.parameters() if isinstance(model, nn.Module) else model
    parameters = [parameter for parameter in everything if parameter.requires_grad]
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


def muon(model: nn.Module, config: MuonConfig, *, lr: float) -> Muon:
    """Build Muon over the hidden matrices of a model."""
    return Muon(
        hidden_matrices(model),
        lr=lr * config.lr_factor,
        momentum=config.momentum,
        nesterov=config.nesterov,
        ns_steps=config.iterations,
        weight_decay=config.weight_decay,
        adjust_lr_fn=_ADJUSTMENTS[config.scale],
    )


def hidden_matrices(model: nn.Module) -> list[nn.Parameter]:
    """Return the trained matrices that map hidden states to hidden states: those without the axis `vocab`.

    Raises:
        ValueError: If a parameter declares no logical axes.
    """
    axes = logical_axes(model)
    return [
        parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and parameter.dim() == 2 and "vocab" not in axes[name]
    ]


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
