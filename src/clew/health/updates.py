"""What an optimizer has done to a parameter in its last step, told from its own state.

Only what the state says exactly is told, for the optimizers of PyTorch; for others the answer is None. The pull of
decoupled weight decay is left out: it is ``lr * weight_decay`` of the weight by definition.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Muon, Optimizer

from clew.health.collecting import pieces, squares


@dataclass(frozen=True)
class Trained:
    """A parameter in the hands of an optimizer.

    Attributes:
        optimizer: The optimizer itself, without what may be wrapped around it.
        group: Its constants for this parameter.
        state: What it remembers of it; empty before the first step.
    """

    optimizer: Optimizer
    group: Mapping[str, Any]
    state: Mapping[str, Any]

    @property
    def tensors(self) -> list[Tensor]:
        """The floating-point tensors of the state that are no counters."""
        found = [value for name, value in self.state.items() if name != "step" and isinstance(value, Tensor)]
        return [value for value in found if value.is_floating_point()]

    @property
    def updates(self) -> Tensor | None:
        """How many steps it has made, a tensor []; None where it does not count."""
        count = self.state.get("step")
        return count if isinstance(count, Tensor) else None if count is None else torch.tensor(float(count))


def trained_by(optimizers: Iterable[Any]) -> dict[int, Trained]:
    """Return what is known of each parameter, by its ``id``; wrappers of Accelerate and Lightning do not matter."""
    found: dict[int, Trained] = {}
    for optimizer in map(_unwrapped, optimizers):
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                # The state creates what is missing when it is asked by index, and must stay as it is.
                found[id(parameter)] = Trained(optimizer, group, optimizer.state.get(parameter, {}))
    return found


def _unwrapped(optimizer: Any) -> Optimizer:
    inner = getattr(optimizer, "optimizer", None)
    return optimizer if not isinstance(inner, Optimizer) else _unwrapped(inner)


def gradient_moment(trained: Trained) -> Tensor | None:
    """Return what the optimizer's first moment says of the gradient: its sum of squares, a tensor [].

    Args:
        trained: Of Adam and AdamW it is the bias-corrected mean, of SGD and Muon the momentum in the gradient's scale.

    Returns:
        None where there is no first moment.
    """
    group, state = trained.group, trained.state
    if isinstance(trained.optimizer, Adam) and "exp_avg" in state:
        return _scaled(state["exp_avg"], 1 / _correction(group["betas"][0], trained))
    buffer = state.get("momentum_buffer")
    if isinstance(trained.optimizer, Muon) and buffer is not None:
        return _scaled(buffer)
    if isinstance(trained.optimizer, SGD) and buffer is not None and group["dampening"] < 1:
        # The buffer is a sum in which each gradient counts 1 - dampening, and fades by the momentum.
        return _scaled(buffer, (1 - group["momentum"]) / (1 - group["dampening"]))
    return None


def update(parameter: nn.Parameter, trained: Trained) -> Tensor | None:
    """Return the sum of squares of a parameter's last update, a tensor []; None where the state does not tell it.

    Args:
        parameter: With its gradient, if it is still there: SGD without momentum, Nesterov's and Muon's updates need it.
        trained: Its optimizer.
    """
    optimizer = trained.optimizer
    if isinstance(optimizer, Adam):
        return _adam(trained)
    if isinstance(optimizer, Muon):
        return _muon(parameter, trained)
    return _sgd(parameter, trained) if isinstance(optimizer, SGD) else None


def _adam(trained: Trained) -> Tensor | None:
    """Adam's ``lr * m_hat / (sqrt(v_hat) + eps)`` (Kingma & Ba 2014, arXiv:1412.6980, algorithm 1)."""
    group, state = trained.group, trained.state
    if "exp_avg" not in state:
        return None
    first = _correction(group["betas"][0], trained)
    second = _correction(group["betas"][1], trained)
    uncentered = state["max_exp_avg_sq"] if group["amsgrad"] else state["exp_avg_sq"]
    total = torch.zeros((), device=uncentered.device)
    for mean, square in pieces(state["exp_avg"], uncentered):
        steps = square.sqrt().div_(second**0.5).add_(group["eps"])
        total = total + squares(torch.div(mean, steps, out=steps))
    moved: Tensor = total * (group["lr"] / first) ** 2
    return moved


def _sgd(parameter: nn.Parameter, trained: Trained) -> Tensor | None:
    group, gradient = trained.group, _dense(parameter)
    buffer = trained.state.get("momentum_buffer")
    if group["momentum"] and not group["nesterov"]:
        return None if buffer is None else _scaled(buffer, group["lr"])
    if gradient is None or (group["momentum"] and buffer is None):
        return None
    # The decay was added with the weights of before the step; those of after it differ by lr² of it.
    total = torch.zeros((), device=gradient.device)
    for slope, weight, fading in pieces(gradient, parameter, gradient if buffer is None else buffer):
        moved = slope + group["weight_decay"] * weight
        moved = moved + group["momentum"] * fading if buffer is not None else moved
        total = total + squares(moved)
    whole: Tensor = total * group["lr"] ** 2
    return whole


def _muon(parameter: nn.Parameter, trained: Trained) -> Tensor | None:
    """Muon's orthogonalised momentum, made once more (Jordan et al. 2024, kellerjordan.github.io/posts/muon)."""
    group, gradient = trained.group, _dense(parameter)
    buffer = trained.state.get("momentum_buffer")
    if buffer is None or (group["nesterov"] and gradient is None):
        return None
    mixed = gradient.lerp(buffer, group["momentum"]) if group["nesterov"] and gradient is not None else buffer
    rows, columns = parameter.shape
    scale = 0.2 * math.sqrt(max(rows, columns)) if group["adjust_lr_fn"] == "match_rms_adamw" else None
    scale = math.sqrt(max(1, rows / columns)) if scale is None else scale
    turned = orthogonalised(mixed, group["ns_coefficients"], group["ns_steps"], group["eps"])
    return _scaled(turned, group["lr"] * scale)


def orthogonalised(matrix: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """Return a matrix of the same singular vectors whose singular values are near 1, by Newton-Schulz in bfloat16.

    Args:
        matrix: [M, N].
        coefficients: Of the odd polynomial of degree five.
        steps: How often it is applied.
        eps: The smallest norm that is divided by.
    """
    first, third, fifth = coefficients
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if tall else matrix).bfloat16()
    x = x / x.norm().clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=third, alpha=fifth), x, beta=first)
    return x.T if tall else x


def _correction(beta: Any, trained: Trained) -> Any:
    """Adam's ``1 - beta^t``; a tensor, so that a counter on the device stays there."""
    count = trained.updates
    return 1.0 if count is None else 1 - beta**count


def _dense(parameter: nn.Parameter) -> Tensor | None:
    gradient = parameter.grad
    return None if gradient is None or gradient.is_sparse else gradient


def _scaled(tensor: Tensor, scale: Any = 1.0) -> Tensor:
    """The sum of squares of a tensor that is scaled by a number or a tensor []."""
    found: Tensor = squares(tensor) * scale**2
    return found
