"""Which tensors of two checkpoints differ, and by how much; one tensor of each is in memory at a time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

_NUMBER = re.compile(r"^\d+\.")
"""What :mod:`clew.checkpoints.state` puts before a name to keep names apart."""


@dataclass(frozen=True)
class Difference:
    """One tensor that is not the same in both.

    Attributes:
        name: File and name in it.
        what: Where it is missing, or which dtype or shape it has in each; empty when only its values differ.
        largest: The largest absolute difference of two values; NaN counts as infinitely far from a number.
        relative: The norm of the difference over the norm of the first.
        values: How many values differ.
        size: How many there are.
    """

    name: str
    what: str = ""
    largest: float = 0.0
    relative: float = 0.0
    values: int = 0
    size: int = 0


@dataclass(frozen=True)
class Compared:
    """What came of a comparison: the tensors that differ, and how many are the same bit by bit."""

    differences: tuple[Difference, ...]
    same: int


def compare_checkpoints(one: Path, other: Path) -> Compared:
    """Compare all tensors of two folders by file and name, bit by bit.

    Args:
        one: A checkpoint's folder.
        other: Another one.
    """
    with ExitStack() as stack:
        left, right = _tensors(one, stack), _tensors(other, stack)
        found = [_difference(name, left.get(name), right.get(name)) for name in sorted({*left, *right})]
    different = [difference for difference in found if difference is not None]
    return Compared(tuple(different), len(found) - len(different))


def _tensors(folder: Path, stack: ExitStack) -> dict[str, tuple[Any, str]]:
    """Return where each tensor is: an open file, and its name there."""
    found: dict[str, tuple[Any, str]] = {}
    for path in sorted(folder.rglob("*.safetensors")):
        file = stack.enter_context(safe_open(path, framework="pt"))
        stem = path.relative_to(folder).with_suffix("").as_posix()
        for name, place in _plain_names(list(file.keys())):
            found[f"{stem}: {name}"] = (file, place)
    return found


def _plain_names(places: list[str]) -> Iterator[tuple[str, str]]:
    """Yield names without the numbers before them, where they are different without."""
    plain = [_NUMBER.sub("", place) for place in places]
    yield from zip(plain if len({*plain}) == len(plain) else places, places, strict=True)


def _difference(name: str, left: tuple[Any, str] | None, right: tuple[Any, str] | None) -> Difference | None:
    if left is None or right is None:
        return Difference(name, "only in the second" if left is None else "only in the first")
    one, other = left[0].get_tensor(left[1]), right[0].get_tensor(right[1])
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return Difference(name, f"{_layout(one)} against {_layout(other)}")
    different = _bits(one) != _bits(other)
    return _measured(name, one, other, int(different.any(-1).sum())) if bool(different.any()) else None


def _bits(tensor: Tensor) -> Tensor:
    """Bytes of the values, ``[values, bytes of one]``: equal bits are equal also where a NaN is none."""
    return tensor.reshape(-1, 1).contiguous().view(torch.uint8)


def _measured(name: str, one: Tensor, other: Tensor, values: int) -> Difference:
    first, second = one.double(), other.double()
    apart = (first - second).abs().nan_to_num(nan=float("inf"), posinf=float("inf"))
    apart[first.eq(second)] = 0.0
    apart[first.isnan() & second.isnan()] = 0.0
    norm = float(first.nan_to_num().norm())
    relative = float(apart.norm()) / norm if norm else float("inf")
    return Difference(name, "", float(apart.max()), relative, values, one.numel())


def _layout(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
