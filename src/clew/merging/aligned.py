"""The weights of a live trainer, and those of checkpoints under the same names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from clew.errors import UserError
from clew.merging.compatibility import Described, differences
from clew.merging.weights import InMemory, Layout, Weights

_SHOWN = 4


class Live(InMemory):
    """Tensors that train at this moment. Those that are one tensor under several names count once, and stay one.

    Args:
        tensors: By name; they are changed in place by :meth:`take`, and only there.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.groups = _tied(tensors)
        self.tensors = {name: tensors[name] for name in self.groups}
        super().__init__(self.tensors)

    @torch.no_grad()
    def take(self, weights: Weights) -> None:
        """Copy tensors of the same names and shapes into these, on whatever device they are."""
        for name, tensor in self.tensors.items():
            tensor.copy_(weights.read(name))

    def align(self, weights: Weights, name: str) -> Weights:
        """Return the weights of a checkpoint under the names of these, and as if in their dtypes.

        Args:
            weights: The checkpoint's.
            name: What it is called.

        Raises:
            UserError: If they are not those of the same model; with the differences.
        """
        places, rest = {}, {place: one.shape for place, one in weights.layout.items()}
        for own, group in self.groups.items():
            if found := [place for place in group if place in rest]:
                places[own] = found[0]
                rest |= {own: rest[found[0]]}
                refuse(name, _untied(weights, found))
            for place in group[1:]:
                rest.pop(place, None)
        shapes = {own: one.shape for own, one in self.layout.items()}
        refuse(name, [*differences(Described({}, shapes), Described({}, rest)), *self._kinds(weights, places)])
        return Aligned(weights, places, self.layout)

    def _kinds(self, weights: Weights, places: Mapping[str, str]) -> Iterator[str]:
        """What of them are numbers of another kind. Real numbers of another width are not: they are rounded."""
        for own, place in places.items():
            here, there = self.layout[own].dtype, weights.layout[place].dtype
            if here != there and not (here.is_floating_point and there.is_floating_point):
                yield f"the dtype of {own} is {_word(here)} and {_word(there)}"


class Aligned:
    """Weights under other names.

    Args:
        weights: The weights.
        places: Name here to name there.
        layout: What they are taken for: a merged tensor is rounded to the dtype that the first model has here.
    """

    def __init__(self, weights: Weights, places: Mapping[str, str], layout: Mapping[str, Layout]) -> None:
        self._weights, self._places = weights, places
        self.layout = layout

    def read(self, name: str) -> Tensor:
        """Return a tensor, in the dtype in which it is stored."""
        return self._weights.read(self._places[name])


def _tied(tensors: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """Return the names of each tensor, by the first of them."""
    groups: dict[object, list[str]] = {}
    for name, tensor in tensors.items():
        # Empty tensors have no storage to share, and all have the same address.
        same = (tensor.data_ptr(), tensor.device, tensor.dtype, tensor.shape, tensor.stride())
        groups.setdefault(same if tensor.numel() else name, []).append(name)
    return {names[0]: names for names in groups.values()}


def _untied(weights: Weights, names: list[str]) -> list[str]:
    first = weights.read(names[0]) if names[1:] else None
    odd = [name for name in names[1:] if first is not None and not torch.equal(first, weights.read(name))]
    return [f"{names[0]} and {name} are one tensor here and two there" for name in odd]


def refuse(name: str, found: list[str], whom: str = "the live weights") -> None:
    """Refuse a source.

    Args:
        name: What it is called.
        found: How it differs; empty for not at all.
        whom: From what.

    Raises:
        UserError: If it differs.
    """
    if found:
        more = f"; and {len(found) - _SHOWN} more" if found[_SHOWN:] else ""
        raise UserError(f"{name} cannot be merged with {whom}: {'; '.join(found[:_SHOWN])}{more}")


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
