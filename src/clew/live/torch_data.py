"""The samples of a PyTorch program by their numbers, and the batches that a feed makes of them.

A ``DataLoader`` says what its data set is, how samples become a batch, how many do, and whether they are shuffled.
Which ones come next is no longer its business: a :class:`clew.data.feed.Feed` says so, from a position.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    TensorDataset,
    default_collate,
)

from clew.data.order import Ids
from clew.errors import UserError

Fetch = Callable[[Ids], Any]


@dataclass(frozen=True)
class Samples:
    """A split of the data.

    Attributes:
        size: The number of samples.
        fetch: Makes a batch of the samples of these ids [B].
        one: Returns a sample as the data set gives it.
        batch_size: Of the loader that it was; None where it was none.
        shuffled: Whether each epoch has another order.
    """

    size: int
    fetch: Fetch
    one: Callable[[int], Any]
    batch_size: int | None = None
    shuffled: bool = True


def samples_of(data: Any) -> Samples:
    """Return what a program gives as its data, as samples.

    Args:
        data: A ``DataLoader``; a data set with ``__len__`` and ``__getitem__``; a tensor; or a tuple, list or dict of
            tensors whose first dimension is that of the samples, which then make batches of the same shape.

    Raises:
        UserError: If it is none of these, or its order cannot be taken over.
    """
    if isinstance(data, DataLoader):
        return _of_loader(data)
    size, fetch, one = _of_data(data, default_collate)
    return Samples(size, fetch, one)


def _of_loader(loader: DataLoader[Any]) -> Samples:
    if isinstance(loader.dataset, IterableDataset):
        raise _unknown(loader.dataset)
    batches: Any = loader.batch_sampler
    # One that Accelerate has prepared says its size there alone.
    sampler, size = (batches.sampler, batches.batch_size) if type(batches) is BatchSampler else (loader.sampler, None)
    if not isinstance(sampler, RandomSampler | SequentialSampler) or (batches is not None and size is None):
        kind = type(batches if size is None and batches is not None else sampler).__name__
        raise UserError(
            f"the order of a {kind} cannot be taken over",
            where="data",
            hint="give the data set itself, and choose samples with clew select",
        )
    count, fetch, one = _of_data(loader.dataset, loader.collate_fn if size else default_collate)
    return Samples(count, fetch, one, size, isinstance(sampler, RandomSampler))


def _of_data(data: Any, collate: Callable[[list[Any]], Any]) -> tuple[int, Fetch, Callable[[int], Any]]:
    """The number of samples, what makes a batch, and what gives a sample."""
    if isinstance(data, Subset):
        indices = np.asarray(data.indices, dtype=np.int64)
        _, fetch, _ = _of_data(data.dataset, collate)
        return _checked(len(indices)), lambda ids: fetch(indices[ids]), data.__getitem__
    tensors = data.tensors if isinstance(data, TensorDataset) else data
    if (isinstance(data, TensorDataset) and collate is default_collate) or _are_tensors(tensors):
        return _of_tensors(tensors)
    try:
        size = len(data)
        get = data.__getitem__
    except (TypeError, AttributeError):
        raise _unknown(data) from None
    return _checked(size), lambda ids: collate([get(number) for number in ids.tolist()]), get


def _of_tensors(tensors: Any) -> tuple[int, Fetch, Callable[[int], Any]]:
    """Samples that lie in tensors already: a batch is cut out of each at once."""
    first = tensors if isinstance(tensors, Tensor) else next(iter(_parts(tensors)))
    if any(len(part) != len(first) for part in _parts(tensors)):
        raise UserError("the tensors have different numbers of samples", where="data")

    def fetch(ids: Ids) -> Any:
        places = torch.from_numpy(ids)
        return _mapped(tensors, lambda part: part.index_select(0, places.to(part.device)))

    def one(number: int) -> Any:
        found = _mapped(tensors, lambda part: part[number])
        return tuple(found) if isinstance(found, list) else found

    return _checked(len(first)), fetch, one


def _are_tensors(data: Any) -> bool:
    parts = list(_parts(data)) if isinstance(data, Tensor | Mapping | tuple | list) and len(data) else []
    return bool(parts) and all(isinstance(part, Tensor) and part.ndim > 0 for part in parts)


def _parts(data: Any) -> Sequence[Any]:
    if isinstance(data, Tensor):
        return [data]
    return list(data.values()) if isinstance(data, Mapping) else list(data)


def _mapped(data: Any, fn: Callable[[Tensor], Any]) -> Any:
    if isinstance(data, Tensor):
        return fn(data)
    if isinstance(data, Mapping):
        return {name: fn(part) for name, part in data.items()}
    return [fn(part) for part in data]


def _checked(size: int) -> int:
    if not size:
        raise UserError("there is no sample in it", where="data")
    return size


def _unknown(data: Any) -> UserError:
    return UserError(
        f"a {type(data).__name__} has no numbered samples, so nobody could say where a run goes on",
        where="data",
        hint="give a data set with __len__ and __getitem__, a DataLoader of one, or tensors",
    )


def moved(batch: Any, device: torch.device) -> Any:
    """Return a batch with its tensors on a device; what holds none is given back as it is."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, Mapping):
        return {name: moved(part, device) for name, part in batch.items()}
    if isinstance(batch, tuple | list):
        parts = [moved(part, device) for part in batch]
        return parts if isinstance(batch, list) else tuple(parts)
    return batch


def halves(batch: Any) -> tuple[Any, Any]:
    """Return the inputs and the targets of a batch, which is a pair, or has its targets last.

    Raises:
        UserError: If it is neither.
    """
    if not isinstance(batch, tuple | list) or len(batch) < len(("inputs", "targets")):
        raise UserError(
            f"of a batch that is a {type(batch).__name__} nobody knows what are inputs and what targets",
            hint="say how well a model knows its samples: losses=...",
        )
    *inputs, targets = batch
    return (inputs[0] if len(inputs) == 1 else tuple(inputs)), targets


def fields_of(number: int, sample: Any) -> dict[str, Any]:
    """Return what is known of a sample: its number, text and length, and what it has of single values.

    The parts of a pair are called ``input`` and ``label``, those of other tuples ``part0`` and so on.
    """
    parts = _named(sample)
    values = {name: value for name, part in parts.items() if (value := _single(part)) is not None}
    text = next((value for value in values.values() if isinstance(value, str)), "")
    length = next((_length(part) for part in parts.values()), 0)
    return {"number": number, "text": text, "length": length, **values}


def _named(sample: Any) -> dict[str, Any]:
    if isinstance(sample, Mapping):
        return {str(name): part for name, part in sample.items()}
    if not isinstance(sample, tuple | list):
        return {"input": sample}
    names = ["input", "label"] if len(sample) == len(("input", "label")) else []
    return {names[place] if names else f"part{place}": part for place, part in enumerate(sample)}


def _single(part: Any) -> Any:
    """A part that is one value, as JSON; None for others."""
    if isinstance(part, Tensor | np.ndarray | np.generic):
        return part.item() if part.ndim == 0 else None
    return part if isinstance(part, str | int | float) else None


def _length(part: Any) -> int:
    """How many entries a part has: tokens, letters, rows; 1 for a single value."""
    if isinstance(part, Tensor | np.ndarray):
        return int(part.shape[0]) if part.ndim else 1
    return len(part) if isinstance(part, str | tuple | list) else 1
