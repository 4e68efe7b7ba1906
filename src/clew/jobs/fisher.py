"""How sure models are of their weights: the diagonal Fisher information, estimated on a task."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
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
    from clew.session import Session

Row = tuple[Sequence[int], Sequence[int]]
"""Token ids, and a label for each: the id itself, or -100 where it is not learnt."""


@contextmanager
def estimated(
    session: Session[Any],
    sources: Sequence[ModelSource],
    first: Weights,
    task: Task,
    method: Fisher,
    device: torch.device,
) -> Iterator[list[Weights]]:
    """Give the information of each model, estimated on the same examples, one model in memory after the other.

    Args:
        session: The live run, in whose folder the estimates lie for a while, in float32. It can be stopped before each
            example.
        sources: The models; an adapter is folded into its base, so what is estimated is that of whole weights.
        first: The weights of the first.
        task: Whose examples, or documents, are used.
        method: How many, and of which split.
        device: Where it is computed.

    Raises:
        UserError: If the task has no example to learn from, or the model's files name weights otherwise than it does.
    """
    from clew.merging.loading import load_folded
    from clew.merging.staging import stage_information
    from clew.models.loading import load_tokenizer

    _check_known(first, sources[0])
    found: list[Weights] = []
    with _scratch(session.run.path / ".fisher") as scratch:
        for number, source in enumerate(sources):
            rows = list(rows_of(task, method, load_tokenizer(source), session.config.seed))
            if not rows:
                raise UserError(f"the task has no {method.split} examples to estimate the Fisher information on")
            model = load_folded(source).to(device)
            fisher = diagonal_fisher(model, rows, lambda: session.boundary(0))
            found.append(stage_information(fisher, fisher, scratch / str(number)))
            del model, fisher  # before the next one is loaded
        yield found


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """Give an empty folder; what an attempt that was killed left in it is gone."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _check_known(first: Weights, source: ModelSource) -> None:
    """Refuse to take the plain mean of weights whose information would not be found, which nobody would see."""
    from clew.merging.opening import hollow

    model = hollow(source)
    known = {name for name, _ in [*model.named_parameters(), *model.named_buffers()]}
    if unknown := sorted(first.layout.keys() - known):
        raise UserError(
            f"{len(unknown)} weights are named otherwise in their file than in the model, such as {unknown[0]}",
            hint="fisher cannot merge this architecture; take another method",
        )


def diagonal_fisher(model: Any, rows: Sequence[Row], boundary: Callable[[], None] = lambda: None) -> dict[str, Tensor]:
    """Return the diagonal of the empirical Fisher information, for each parameter by name, in its shape.

    The log-likelihood of an example is a sum over its learnt tokens; see
    :func:`clew.merging.information.squared_gradients`.

    Args:
        model: A causal language model, which is put into evaluation mode; in float32.
        rows: The examples.
        boundary: Called before each.
    """
    from clew.merging.information import squared_gradients

    def likelihood(row: Row) -> Tensor:
        boundary()
        return _log_likelihood(model, row)

    parameters = dict(model.eval().requires_grad_(True).named_parameters())
    return squared_gradients(parameters, [partial(likelihood, row) for row in rows])


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
