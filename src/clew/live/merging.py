"""Merging into a live trainer: other weights become one with those that train, all of them or none.

Everything is compared before anything is computed, and computed before anything is taken. On the way the merged tensors
lie in a file, and beside it at most twice the largest tensor of each source is in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from torch import Tensor

from clew.errors import UserError
from clew.merging.aligned import Live, refuse
from clew.merging.asked import Asked, asked
from clew.merging.folders import describe_folder, folder_differences
from clew.merging.live_lora import LiveLora
from clew.merging.lora import Lora
from clew.merging.merge import Merge, is_statistic
from clew.merging.methods.fisher import Fisher
from clew.merging.staging import stage, stage_information
from clew.merging.stored import open_state
from clew.merging.weights import Weights
from clew.session.surface import MergeRequest

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Information", "merge_into", "merge_lora_into", "open_state"]

Information = Callable[[Weights, Fisher], Mapping[str, Tensor]]
"""From weights under the names of the live tensors, and the method's options, to the diagonal of their Fisher
information on the run's own data, by name; :func:`clew.merging.information.live_information` does most of it."""


def merge_into(
    live: Mapping[str, Tensor],
    request: MergeRequest,
    open_checkpoint: Callable[[Path], Weights],
    *,
    fisher: Information | None = None,
) -> Mapping[str, Any]:
    """Merge checkpoints, and the weights of the moment, into live tensors.

    Args:
        live: Parameters and buffers by name, such as ``model.state_dict(keep_vars=True)``; they are changed in
            place. A tensor under several names stays one.
        request: What is merged, and how. What becomes of an optimizer is left to whoever has it.
        open_checkpoint: Gives the weights of a source, under the names of ``live``; see :func:`open_state`.
        fisher: Estimates the Fisher information on the run's own data; None rejects methods that need it.

    Returns:
        What there is to say about it, as JSON: ``method``, ``shares``, ``tensors`` (their number), ``change`` (norm,
        and ratio to the norm before), and only where there is any, ``tied``, ``taken_from_first`` (what holds no real
        numbers and differs) and ``statistics`` (running statistics, which are pooled).

    Raises:
        UserError: If there is no such method, the sources are of another model, or what comes out is not finite. Then
            the live tensors are as they were.
    """
    work, own = asked(request), Live(live)
    if work.method.uses_base and request.base is None:
        raise UserError("this method needs the model that all came from", hint="name it: base=...")
    if isinstance(work.method, Fisher) and fisher is None:
        raise UserError("this job cannot estimate the Fisher information of its weights", hint="take another method")
    named = zip(request.names, request.sources, strict=True)
    _compare(request)
    models = [own if path is None else own.align(open_checkpoint(path), name) for name, path in named]
    base = None if request.base is None else own.align(open_checkpoint(request.base), "the base")
    with _scratch(request) as folder:
        known = _information(work, own, models, fisher, folder)
        merge = Merge(work.method, models, work.weights, base, known, seed=request.seed)
        merged, change = stage(merge, own, folder)
        own.take(merged)
    return {**_facts(work, merge), "change": change.norms, **_besides(own, merge)}


def merge_lora_into(
    model: nn.Module, request: MergeRequest, open_adapter: Callable[[Path], Lora] = Lora, *, adapter: str = "default"
) -> Mapping[str, Any]:
    """Merge LoRA adapters into the live one of a PEFT model, by what they add to their base.

    The products B A are merged, and the result is factored again at the live adapter's ranks by a truncated SVD. Where
    it is the product of one of the sources, that one's matrices are taken as they are. Without a base in the request,
    the adapters are taken as differences from the model below them.

    Args:
        model: The PEFT model; A and B are changed in place.
        request: What is merged, and how.
        open_adapter: Gives the adapter of a source.
        adapter: The name of the live one.

    Returns:
        As :func:`merge_into`; ``change`` is that of the products, and ``adapters`` says the largest rank and the part
        of the squared norm that the factors keep, in the mean and the least.

    Raises:
        UserError: As :func:`merge_into`; or if an adapter is more than products of two matrices, stands on another base
            or changes weights that the live one leaves alone.
    """
    work, own = asked(request), LiveLora(model, adapter)
    if isinstance(work.method, Fisher):
        raise UserError(
            "what trains is an adapter, and the information of its two matrices is not that of their product",
            hint="take another method, or merge into a new run with adapters=fold",
        )
    named = zip(request.names, request.sources, strict=True)
    _compare(request)
    models = [own if path is None else own.align(open_adapter(path), name) for name, path in named]
    base = None if request.base is None else own.align(open_adapter(request.base), "the base")
    merge = Merge(work.method, models, work.weights, base, seed=request.seed)
    change, kept = own.merge(merge, models)
    return {**_facts(work, merge), "change": change.norms, "adapters": {"form": "factored", **kept}}


def _compare(request: MergeRequest) -> None:
    """Refuse models that compute otherwise or cut texts otherwise, as far as files in their checkpoints say it."""
    named = [("this run", request.own), *zip(request.names, request.sources, strict=True), ("the base", request.base)]
    known = [(name, found) for name, path in named if path is not None and (found := describe_folder(path))]
    for name, found in known[1:]:
        refuse(name, folder_differences(known[0][1], found), known[0][0])


@contextmanager
def _scratch(request: MergeRequest) -> Iterator[Path]:
    with TemporaryDirectory(dir=request.scratch, prefix=".merging-") as folder:
        yield Path(folder)


def _information(
    work: Asked, own: Live, models: Sequence[Weights], fisher: Information | None, folder: Path
) -> list[Weights] | None:
    """Return the Fisher information of each source, where the method uses it."""
    if not isinstance(work.method, Fisher) or fisher is None:
        return None
    trained = {name for name, tensor in own.tensors.items() if tensor.requires_grad}
    found: list[Weights] = []
    for number, model in enumerate(models):
        known = stage_information(fisher(model, work.method), own.layout, folder / f"fisher-{number}")
        # Without it their mean would be plain, which nobody would see.
        if missing := sorted(trained - known.layout.keys()) or ([] if known.layout else sorted(own.layout)):
            raise UserError(f"there is no Fisher information of {len(missing)} weights, such as {missing[0]}")
        found.append(known)
    return found


def _facts(work: Asked, merge: Merge) -> dict[str, Any]:
    return {"method": work.said, "shares": work.shares, "tensors": len(merge.layout)}


def _besides(own: Live, merge: Merge) -> dict[str, Any]:
    """What became of tensors that are no plain weights."""
    found: dict[str, Any] = {}
    if tied := [names for names in own.groups.values() if names[1:]]:
        found["tied"] = tied
    if merge.differing:
        found["taken_from_first"] = merge.differing
    if statistics := [name for name in own.layout if is_statistic(name, own.layout)]:
        found["statistics"] = {"tensors": len(statistics), "how": "pooled by shares, as of all data together"}
    return found
