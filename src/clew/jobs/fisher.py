"""How sure models are of their weights: the diagonal Fisher information, estimated on a task."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clew.data.order import permute
from clew.errors import UserError
from clew.tasks import Task, has_part

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from clew.merging.methods.fisher import Fisher
    from clew.merging.weights import Weights
    from clew.models.source import ModelSource

Row = tuple[Sequence[int], Sequence[int]]
"""Token ids, and a label for each: the id itself, or -100 where it is not learnt."""


def estimate(
    sources: Sequence[ModelSource],
    task: Task,
    method: Fisher,
    device: torch.device,
    scratch: Path,
    *,
    seed: int,
    boundary: Callable[[], None],
) -> list[Weights]:
    """Estimate the information of each model on the same examples, one model in memory after the other.

    Args:
        sources: The models; an adapter is folded into its base, so what is estimated is that of whole weights.
        task: Whose examples, or documents, are used.
        method: How many, and of which split.
        device: Where it is computed.
        scratch: A folder for the estimates, in float32.
        seed: Chooses the examples.
        boundary: Called before each example.

    Raises:
        UserError: If the task has no example to learn from.
    """
    from safetensors.torch import save_file

    from clew.merging.loading import load_folded
    from clew.merging.weights import Files
    from clew.models.loading import load_tokenizer

    found: list[Weights] = []
    for number, source in enumerate(sources):
        rows = list(rows_of(task, method, load_tokenizer(source), seed))
        if not rows:
            raise UserError(f"the task has no {method.split} examples to estimate the Fisher information on")
        folder = scratch / str(number)
        folder.mkdir()
        model = load_folded(source).to(device)
        save_file(diagonal_fisher(model, rows, boundary), folder / "model.safetensors")
        found.append(Files(folder))
    return found


def diagonal_fisher(model: Any, rows: Sequence[Row], boundary: Callable[[], None] = lambda: None) -> dict[str, Tensor]:
    """Return the diagonal of the empirical Fisher information, for each parameter by name, in its shape.

    F = (1/N) sum_n (d/dw log p(y_n | x_n, w))^2: the square of the gradient of each example's log-likelihood, a sum
    over its learnt tokens, and then the mean over the N examples. The answers y_n are those of the data (hence
    empirical); the expected information would draw them from the model. No gradient of a batch is squared.

    Args:
        model: A causal language model, which is put into evaluation mode; in float32.
        rows: The examples.
        boundary: Called before each.
    """
    import torch

    model.eval().requires_grad_(True)
    parameters = dict(model.named_parameters())
    sums = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    for row in rows:
        boundary()
        gradients = torch.autograd.grad(_log_likelihood(model, row), list(parameters.values()), allow_unused=True)
        for total, gradient in zip(sums.values(), gradients, strict=True):
            if gradient is not None:
                total.addcmul_(gradient, gradient)
    return {name: (total / len(rows)).cpu() for name, total in sums.items()}


def rows_of(task: Task, method: Fisher, tokenizer: Any, seed: int) -> Iterator[Row]:
    """Yield tokenized examples, as the job sft learns them; or documents, where the task has no examples."""
    if not has_part(task, "examples"):
        for text in islice(task.documents(method.split), method.samples):
            ids = tokenizer(text)["input_ids"][: method.max_length]
            yield ids, ids
        return
    from clew.tasks.labels import label

    examples = task.examples(method.split)
    places = np.arange(min(method.samples, len(examples)))
    chosen = permute(places, len(examples), seed=seed, epoch=0) if len(examples) else places
    for one in label([examples[int(index)] for index in chosen], tokenizer, task=task):
        yield one.ids[: method.max_length], one.labels[: method.max_length]


def _log_likelihood(model: Any, row: Row) -> Tensor:
    import torch

    ids, labels = (torch.tensor([part], device=model.device) for part in row)
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1].float()
    loss = torch.nn.functional.cross_entropy(logits[0], labels[0, 1:], ignore_index=-100, reduction="sum")
    return -loss
