"""What a PyTorch program trains with, by name, and its complete state: out, in, and compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim import Optimizer

from clew.errors import DataError, UserError


@runtime_checkable
class Stateful(Protocol):
    """Something with a state of its own, such as a schedule or a moving average of weights."""

    def state_dict(self) -> Any:
        """Return the state: dicts, lists and tuples of tensors, numbers and texts."""

    def load_state_dict(self, state: Any, /) -> Any:
        """Take over what :meth:`state_dict` returned."""


@dataclass(frozen=True)
class Parts:
    """What trains.

    Attributes:
        models: The modules, by name.
        optimizers: By name.
        schedulers: By name.
        scaler: Scales losses in half precision; None without one.
        extras: Whatever else has a state that the program goes on from.
    """

    models: Mapping[str, nn.Module]
    optimizers: Mapping[str, Optimizer] = field(default_factory=dict)
    schedulers: Mapping[str, Stateful] = field(default_factory=dict)
    scaler: Stateful | None = None
    extras: Mapping[str, Stateful] = field(default_factory=dict)

    @property
    def whole(self) -> nn.Module:
        """All modules in one, which names its tensors ``NAME.PLACE``."""
        whole = nn.Module()
        for name, model in self.models.items():
            whole.add_module(name, model)
        return whole

    def tensors(self) -> dict[str, Tensor]:
        """Return parameters and buffers as they lie in memory; a tied one has all its names."""
        found = self.whole.state_dict(keep_vars=True)
        return {name: one for name, one in found.items() if isinstance(one, Tensor)}

    @property
    def device(self) -> torch.device:
        """Where the first parameter is; the CPU where there is none."""
        return next((one.device for one in self.whole.parameters()), torch.device("cpu"))

    def state(self) -> dict[str, Any]:
        """Return the complete state; its tensors are those that train."""
        return {
            "models": self.whole.state_dict(),
            "optimizers": _states(self.optimizers),
            "schedulers": _states(self.schedulers),
            "scaler": None if self.scaler is None else self.scaler.state_dict(),
            "extras": _states(self.extras),
        }

    def check(self, state: Mapping[str, Any], *, optimizers: bool = True) -> None:
        """Make sure that a state is one of these parts.

        Raises:
            DataError: If it is not; with what differs.
        """
        if odd := [*_differences(self.tensors(), state["models"])]:
            raise _of_another("model", odd)
        if not optimizers:
            return
        for kind, own in (("optimizers", self.optimizers), ("schedulers", self.schedulers), ("extras", self.extras)):
            if odd := sorted(own.keys() ^ state[kind].keys()):
                raise _of_another("program", [f"{kind}: {name}" for name in odd])
        for name, optimizer in self.optimizers.items():
            sizes = [len(group["params"]) for group in optimizer.param_groups]
            if sizes != [len(group["params"]) for group in state["optimizers"][name]["param_groups"]]:
                raise _of_another("program", [f"the groups of {name}"])

    @torch.no_grad()
    def take_weights(self, state: Mapping[str, Any]) -> None:
        """Take the weights and buffers of a state that was checked."""
        self.whole.load_state_dict(state["models"])

    def take(self, state: Mapping[str, Any]) -> None:
        """Take all of a state that was checked."""
        self.take_weights(state)
        for kind, own in (("optimizers", self.optimizers), ("schedulers", self.schedulers), ("extras", self.extras)):
            for name, part in own.items():
                part.load_state_dict(state[kind][name])
        if self.scaler is not None and state["scaler"] is not None:
            self.scaler.load_state_dict(state["scaler"])

    def take_moments(self, state: Mapping[str, Any]) -> None:
        """Take what the optimizers of a state that was checked know, but not their rates: the schedule goes on."""
        for name, optimizer in self.optimizers.items():
            groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": state["optimizers"][name]["state"], "param_groups": groups})

    def forget_moments(self) -> None:
        """Let the optimizers begin as if they had made no step."""
        for optimizer in self.optimizers.values():
            optimizer.state.clear()


def gathered(
    model: Any,
    optimizer: Any = None,
    scheduler: Any = None,
    scaler: Any = None,
    extras: Mapping[str, Any] | None = None,
) -> Parts:
    """Return what a program gives as its parts: one, several in a row, or several by name.

    What Accelerate, ``DistributedDataParallel`` or ``torch.compile`` have put around a part is taken off.

    Raises:
        UserError: If something is no part of that kind.
    """
    models = {name: _inner(one) for name, one in _named(model, "model").items()}
    optimizers = {name: _inner(one) for name, one in _named(optimizer, "optimizer").items()}
    schedulers = {name: _inner(one) for name, one in _named(scheduler, "scheduler").items()}
    kinds: Sequence[tuple[str, Mapping[str, Any], type]] = (
        ("model", models, nn.Module),
        ("optimizer", optimizers, Optimizer),
        ("scheduler", schedulers, Stateful),
        ("extras", dict(extras or {}), Stateful),
    )
    for kind, found, cls in kinds:
        for name, one in found.items():
            if not isinstance(one, cls):
                wanted = "something with state_dict() and load_state_dict()" if cls is Stateful else f"a {cls.__name__}"
                raise UserError(f"{name} must be {wanted}, not a {type(one).__name__}", where=kind)
            if "." in name:
                raise UserError(f"{name!r} has a dot, which parts the names of tensors", where=kind)
    if not models:
        raise UserError("there is no model", where="model", hint="name what trains: model=...")
    return Parts(models, optimizers, schedulers, scaler, dict(extras or {}))


def storable(value: Any) -> Any:
    """Give the arrays of a nested state the form that a checkpoint can hold."""
    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.array(value))
    if isinstance(value, Mapping):
        return {key: storable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [storable(item) for item in value]
    return value


def _named(given: Any, name: str) -> dict[str, Any]:
    if given is None:
        return {}
    if isinstance(given, Mapping) and not isinstance(given, nn.Module):
        return dict(given)
    if isinstance(given, list | tuple):
        return {f"{name}{place}": one for place, one in enumerate(given)}
    return {name: given}


def _inner(part: Any) -> Any:
    """Take off what others have put around a part."""
    if isinstance(part, DistributedDataParallel | DataParallel):
        return _inner(part.module)
    kind, home = type(part).__name__, type(part).__module__
    if kind == "OptimizedModule":  # of torch.compile
        return _inner(part._orig_mod)
    if home.startswith("accelerate.") and kind in ("AcceleratedOptimizer", "AcceleratedScheduler"):
        return _inner(part.optimizer if kind == "AcceleratedOptimizer" else part.scheduler)
    return part


def _states(parts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: part.state_dict() for name, part in parts.items()}


def _differences(own: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[str]:
    yield from sorted(own.keys() ^ other.keys())
    for name in own.keys() & other.keys():
        if isinstance(own[name], Tensor) and own[name].shape != other[name].shape:
            yield f"{name} {tuple(own[name].shape)} and {tuple(other[name].shape)}"


def _of_another(what: str, odd: Sequence[str]) -> DataError:
    return DataError(
        f"the checkpoint is of another {what}: {', '.join(odd[:3])}",
        hint="a checkpoint fits the program that wrote it; start a new run",
    )
