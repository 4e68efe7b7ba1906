"""How sure a model is of its weights: the diagonal of the empirical Fisher information."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from clew.checkpoints.rng import kept_rng
from clew.errors import UserError
from clew.merging.weights import Weights


def squared_gradients(
    parameters: Mapping[str, Tensor], likelihoods: Iterable[Callable[[], Tensor]]
) -> dict[str, Tensor]:
    """Return the diagonal of the empirical Fisher information, for each parameter by name, in its shape.

    F = (1/N) sum_n (d/dw log p(y_n | x_n, w))^2, where the y_n are those of the data (hence empirical). The mean is one
    of squares: no gradient of a batch is squared (Kunstner et al. 2019, arXiv:1905.12558).

    Args:
        parameters: What the information is about; each requires gradients.
        likelihoods: For each of the N examples, what computes its log-likelihood, a scalar; or a loss, since signs do
            not count.

    Returns:
        On the CPU, in the dtypes of the parameters; zeros where a parameter has no influence.

    Raises:
        UserError: If there is no example.
    """
    sums = {name: torch.zeros_like(parameter, requires_grad=False) for name, parameter in parameters.items()}
    count = 0
    for likelihood in likelihoods:
        gradients = torch.autograd.grad(likelihood(), list(parameters.values()), allow_unused=True)
        count += 1
        for total, gradient in zip(sums.values(), gradients, strict=True):
            if gradient is not None:
                total.addcmul_(gradient, gradient)
    if not count:
        raise UserError("there are no examples to estimate the Fisher information on")
    return {name: (total / count).cpu() for name, total in sums.items()}


def live_information(
    model: nn.Module, weights: Weights, likelihoods: Iterable[Callable[[], Tensor]]
) -> dict[str, Tensor]:
    """Return the information that a live model would have with other weights. Afterwards it is as it was.

    Args:
        model: The model; it holds these weights, in evaluation mode, while a likelihood is computed.
        weights: Under the names of its ``state_dict``, tied ones once.
        likelihoods: See :func:`squared_gradients`.

    Raises:
        UserError: If there is no example.
    """
    parameters = {name: one for name, one in model.named_parameters() if one.requires_grad}
    with _undisturbed(model), _lent(model.state_dict(), weights):
        return squared_gradients(parameters, likelihoods)


@contextmanager
def _undisturbed(model: nn.Module) -> Iterator[None]:
    """Evaluate, and put modes and random generators back."""
    modes = {part: part.training for part in model.modules()}
    model.eval()
    try:
        with kept_rng(), torch.enable_grad():
            yield
    finally:
        for part, mode in modes.items():
            part.training = mode


@contextmanager
def _lent(live: Mapping[str, Tensor], weights: Weights) -> Iterator[None]:
    """Put weights into a model's tensors for a while."""
    names = [name for name in weights.layout if name in live]
    kept = {name: live[name].detach().clone() for name in names}
    try:
        with torch.no_grad():
            for name in names:
                live[name].copy_(weights.read(name))
        yield
    finally:
        with torch.no_grad():
            for name, tensor in kept.items():
                live[name].copy_(tensor)
