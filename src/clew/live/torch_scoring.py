"""How well any PyTorch model knows single samples."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clew.checkpoints.rng import kept_rng
from clew.data.order import Ids
from clew.errors import UserError
from clew.health.activations import evaluating
from clew.inspection.samples import Scores
from clew.live.torch_data import Samples, fields_of, halves, moved

_PAIR = 2


@dataclass(frozen=True)
class Judged:
    """What a model makes of a batch of B samples.

    Attributes:
        losses: [B], in whatever unit the program's loss has.
        outputs: What the model gave; None where nobody knows.
        targets: What it should have given; None where nobody knows.
    """

    losses: Tensor
    outputs: Any = None
    targets: Any = None


Judge = Callable[[Any], Judged]
"""Looks at a batch that lies on the model's device."""


def judge_of(model: nn.Module, loss_fn: Callable[..., Any] | None, losses: Callable[[Any], Tensor] | None) -> Judge:
    """Return what judges the samples of a batch one by one.

    Args:
        model: Called with the inputs of a batch.
        loss_fn: ``loss_fn(outputs, targets)``. One that can leave its losses apart (``reduction``) does so; any other
            is called for each sample alone, with the outputs that were computed for all.
        losses: ``losses(batch)`` gives [B]; instead of the other two.

    Raises:
        UserError: If there is neither ``loss_fn`` nor ``losses``.
    """
    if losses is not None:
        return lambda batch: Judged(losses(batch))
    if loss_fn is None:
        raise UserError(
            "nobody knows how well the model knows a single sample",
            hint="give loss_fn=..., or losses=..., a function from a batch to the loss of each sample",
        )
    apart = _apart(loss_fn)

    def judge(batch: Any) -> Judged:
        inputs, targets = halves(batch)
        outputs = model(*inputs) if isinstance(inputs, tuple) else model(inputs)
        return Judged(apart(outputs, targets), outputs, targets)

    return judge


def _apart(loss_fn: Callable[..., Any]) -> Callable[[Any, Any], Tensor]:
    """Return what gives the loss [B] of each sample: the mean over those of its targets that count."""
    single = _unreduced(loss_fn)

    def apart(outputs: Any, targets: Any) -> Tensor:
        count = len(targets)
        if single is not None:
            losses = single(outputs, targets)
            if losses.ndim and len(losses) == count:
                return _mean_of_each(losses, targets, getattr(loss_fn, "ignore_index", -100))
        # What follows one sample's outputs and targets is that sample's loss, whatever the function does.
        each = [loss_fn(_cut(outputs, place), targets[place : place + 1]) for place in range(count)]
        return torch.stack([loss.reshape(()) for loss in each])

    return apart


def _unreduced(loss_fn: Callable[..., Any]) -> Callable[..., Tensor] | None:
    """The same function with its losses left apart; None where it has no such switch."""
    if isinstance(loss_fn, nn.Module):
        if "reduction" not in vars(loss_fn):
            return None
        made = copy.copy(loss_fn)
        made.reduction = "none"  # type: ignore[assignment]
        return made
    try:
        known = inspect.signature(loss_fn).parameters
    except (TypeError, ValueError):
        return None
    return (lambda outputs, targets: loss_fn(outputs, targets, reduction="none")) if "reduction" in known else None


def _mean_of_each(losses: Tensor, targets: Tensor, ignored: int) -> Tensor:
    if losses.ndim == 1:
        return losses
    if losses.shape == targets.shape and not targets.is_floating_point():
        here = (targets != ignored).flatten(1)
        return torch.where(here, losses.flatten(1), 0).sum(1) / here.sum(1)
    return losses.flatten(1).mean(1)


def _cut(outputs: Any, place: int) -> Any:
    if isinstance(outputs, Tensor):
        return outputs[place : place + 1]
    if isinstance(outputs, Mapping):
        return {name: _cut(part, place) for name, part in outputs.items()}
    if isinstance(outputs, tuple | list):
        return tuple(_cut(part, place) for part in outputs)
    raise UserError(f"a {type(outputs).__name__} cannot be cut into samples", hint="give losses=...")


class TorchScorer:
    """Scores the samples of a split with the weights of the moment; a :class:`clew.inspection.samples.Scorer`.

    The embedding is what goes into the last linear layer, the mean over all places where a sample has several.

    Args:
        model: All that is evaluated, and where hooks are put for a moment.
        samples: The split.
        judge: Looks at a batch.
        batch_size: How many samples are scored at once.
        device: Where batches go.
        around: Surrounds the model's work, such as with autocast.
    """

    def __init__(
        self,
        model: nn.Module,
        samples: Samples,
        judge: Judge,
        *,
        batch_size: int,
        device: torch.device,
        around: Callable[[], Any],
    ) -> None:
        self.batch_size = batch_size
        self._model = model
        self._samples = samples
        self._judge = judge
        self._device = device
        self._around = around

    def __len__(self) -> int:
        return self._samples.size

    def score(self, ids: Ids, *, tokens: bool = False) -> Scores:
        """Score the samples of these ids [B]: losses, margins where targets are classes, and embeddings.

        Raises:
            UserError: If what gives the losses gives another number of them.
        """
        batch = moved(self._samples.fetch(ids), self._device)
        with undisturbed(self._model), self._around(), _inputs_of_linear(self._model) as seen:
            judged = self._judge(batch)
            if judged.losses.shape != (len(ids),):
                shape = tuple(judged.losses.shape)
                raise UserError(f"there must be {len(ids)} losses for so many samples, not {shape}", where="losses")
        margins = _margins(judged.outputs, judged.targets)
        embedding = _embedding(seen, len(ids))
        return Scores(
            judged.losses.double().cpu().numpy(),
            None if margins is None else margins.double().cpu().numpy(),
            None if embedding is None else embedding.float().cpu().numpy(),
        )

    def fields(self, ids: Ids) -> list[Mapping[str, Any]]:
        """Return of each sample its ``number``, ``text``, ``length``, and what it has of single values."""
        return [fields_of(int(number), self._samples.one(int(number))) for number in ids]


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Look at a model, in its evaluation mode and without gradients, and leave no trace in what trains."""
    with kept_rng(), evaluating(model), torch.no_grad():
        yield


@contextmanager
def _inputs_of_linear(model: nn.Module) -> Iterator[list[Tensor]]:
    """Keep what goes into linear layers, the last call last."""
    seen: list[Tensor] = []

    def see(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if inputs and isinstance(inputs[0], Tensor):
            seen[:] = [inputs[0].detach()]

    with ExitStack() as hooks:
        for module in model.modules():
            if isinstance(module, nn.Linear):
                hooks.callback(module.register_forward_pre_hook(see).remove)
        yield seen


def _embedding(seen: Sequence[Tensor], count: int) -> Tensor | None:
    """The mean [B, D] of what went into a layer, whose rows are a sample's, one after the other."""
    if not seen or seen[0].ndim < _PAIR or seen[0].shape[:-1].numel() % count:
        return None
    return seen[0].reshape(count, -1, seen[0].shape[-1]).float().mean(1)


def _margins(outputs: Any, targets: Any) -> Tensor | None:
    """The mean margin [B] of class targets; None where outputs are no logits of classes.

    Logits have the classes where PyTorch's cross-entropy has them ([B, C, ...]), or last ([B, ..., C]).
    """
    if not isinstance(outputs, Tensor) or not isinstance(targets, Tensor) or targets.is_floating_point():
        return None
    if outputs.ndim != targets.ndim + 1 or not outputs.is_floating_point():
        return None
    if outputs.shape[:-1] != targets.shape:
        if outputs.shape[:1] + outputs.shape[2:] != targets.shape:
            return None
        outputs = outputs.movedim(1, -1)
    if outputs.shape[-1] < _PAIR:
        return None
    logs, here = F.log_softmax(outputs.float(), -1), targets >= 0
    places = targets.clamp(min=0).unsqueeze(-1)
    right = logs.gather(-1, places).squeeze(-1)
    wrong = logs.scatter(-1, places, -torch.inf).amax(-1)
    margins = torch.where(here, right - wrong, 0).reshape(len(targets), -1)
    return margins.sum(1) / here.reshape(len(targets), -1).sum(1)
