"""A nested state that lies in several processes, on disk without pickle: each writes its own parts of the tensors.

Rank *r* writes ``NAME-r.safetensors`` with its parts, and ``NAME-r.json``, which says where each lies in the whole:
``{"ranks": 4, "parts": {name: {"shape": [...], "offsets": [...], "sizes": [...]}}}``. Rank 0 also writes ``NAME.json``
with the tree, as :func:`clew.checkpoints.state.save_state` does. Whoever reads asks for any slice of a tensor, and only
that is read; so a state that was saved by some ranks is restored by any other number of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from clew.checkpoints.state import joined, split
from clew.errors import DataError


@dataclass(frozen=True)
class Place:
    """Where a process's part of a tensor lies in the whole.

    Attributes:
        shape: Of the whole.
        offsets: Where the part begins, in each dimension.
        sizes: Of the part; it may be empty.
        owned: Whether this process writes it: of several that hold the same part, one does.
    """

    shape: tuple[int, ...]
    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    owned: bool = True


class Stored:
    """A tensor on disk, whole or in parts.

    Args:
        name: Its name there.
        parts: Where each part lies, and an open file that has it.
    """

    def __init__(self, name: str, parts: Sequence[tuple[Place, Any]]) -> None:
        self._name = name
        self._parts = parts
        self.shape = torch.Size(parts[0][0].shape)

    @cached_property
    def dtype(self) -> torch.dtype:
        """Its dtype."""
        found: torch.dtype = self._read_part(0, [slice(0, 0)] * len(self.shape)).dtype
        return found

    def read(self) -> Tensor:
        """Return the whole of it, on the CPU."""
        return self.part((0,) * len(self.shape), tuple(self.shape))

    def part(self, offsets: Sequence[int], sizes: Sequence[int]) -> Tensor:
        """Return a part of it on the CPU, of which nothing else is read.

        Args:
            offsets: Where it begins, in each dimension.
            sizes: How long it is.

        Raises:
            DataError: If the parts that are there do not make it up.
        """
        pieces = list(self._pieces(offsets, sizes))
        if len(pieces) == 1 and pieces[0][1].shape == torch.Size(sizes):
            return pieces[0][1]
        made = torch.empty(tuple(sizes), dtype=self.dtype)
        self._fill(made, pieces)
        return made

    def fill(self, part: Tensor, offsets: Sequence[int]) -> None:
        """Read a part of it into a tensor of that size, with no other one in between.

        Args:
            part: Gets it; of any dtype and device, and however it lies in memory.
            offsets: Where it begins, in each dimension.

        Raises:
            DataError: If the parts that are there do not make it up.
        """
        self._fill(part, self._pieces(offsets, part.shape))

    def _fill(self, part: Tensor, pieces: Iterable[tuple[list[slice], Tensor]]) -> None:
        filled = 0
        for ranges, piece in pieces:
            part[tuple(ranges)] = piece
            filled += piece.numel()
        if filled != part.numel():
            raise DataError(f"a part of {self._name} is missing in the checkpoint")

    def _pieces(self, offsets: Sequence[int], sizes: Sequence[int]) -> Iterator[tuple[list[slice], Tensor]]:
        """Yield what of a part lies in each of those that are there, and where in it."""
        for number, (place, _) in enumerate(self._parts):
            begins = [max(one, other) for one, other in zip(offsets, place.offsets, strict=True)]
            ends = [
                min(offset + size, begin + length)
                for offset, size, begin, length in zip(offsets, sizes, place.offsets, place.sizes, strict=True)
            ]
            if all(begin < end for begin, end in zip(begins, ends, strict=True)):
                yield _ranges(begins, ends, offsets), self._read_part(number, _ranges(begins, ends, place.offsets))

    def _read_part(self, number: int, ranges: Sequence[slice]) -> Tensor:
        file = self._parts[number][1]
        tensor: Tensor = file.get_slice(self._name)[tuple(ranges)] if ranges else file.get_tensor(self._name)
        return tensor


def _ranges(begins: Sequence[int], ends: Sequence[int], origin: Sequence[int]) -> list[slice]:
    return [slice(begin - zero, end - zero) for begin, end, zero in zip(begins, ends, origin, strict=True)]


def save_shards(directory: Path, name: str, state: Any, places: Mapping[str, Place], *, rank: int, ranks: int) -> None:
    """Write a process's part of a state; every rank calls it with the same tree.

    Args:
        directory: An existing folder, the same for all.
        name: Stem of the files.
        state: As for :func:`clew.checkpoints.state.save_state`; its tensors are this process's parts.
        places: By the path of a tensor in the tree, such as ``.model.embed.weight``: where its part lies. What is not
            there is whole, and the same in every process.
        rank: Which process this is.
        ranks: How many there are.
    """
    tensors: dict[str, Tensor] = {}
    tree = split(state, "", tensors)
    own, parts = {}, {}
    for key, tensor in tensors.items():
        shape = tuple(tensor.shape)
        place = places.get(key[key.index(".") :], Place(shape, (0,) * len(shape), shape, owned=rank == 0))
        if place.owned and (0 not in place.sizes or place.sizes == place.shape):
            own[key] = tensor
            parts[key] = {"shape": place.shape, "offsets": place.offsets, "sizes": place.sizes}
    save_file(own, directory / f"{name}-{rank}.safetensors")
    _write(directory / f"{name}-{rank}.json", {"ranks": ranks, "parts": parts})
    if rank == 0:
        _write(directory / f"{name}.json", tree)


def is_sharded(directory: Path, name: str) -> bool:
    """Whether a state was written by :func:`save_shards`."""
    return (directory / f"{name}-0.json").is_file()


def open_state(directory: Path, name: str) -> Any:
    """Return a state of either form, in which a :class:`Stored` stands for each tensor: nothing of them is read yet.

    Raises:
        FileNotFoundError: If there is none.
        DataError: If the part of a rank is missing.
    """
    tree = json.loads((directory / f"{name}.json").read_text(encoding="utf-8"))
    return joined(tree, _parts(directory, name) if is_sharded(directory, name) else _whole(directory, name))


def read_state(directory: Path, name: str) -> Any:
    """Return a state of either form, with whole tensors on the CPU."""
    return mapped(open_state(directory, name), lambda path, stored: stored.read())


def mapped(value: Any, take: Callable[[str, Any], Any], path: str = "", kind: type = Stored) -> Any:
    """Return a nested state with ``take(path, item)`` in the place of each item of a kind, such as a tensor."""
    if isinstance(value, kind):
        return take(path, value)
    if isinstance(value, dict):
        return {key: mapped(item, take, f"{path}.{key}", kind) for key, item in value.items()}
    if isinstance(value, list | tuple):
        made = [mapped(item, take, f"{path}.{index}", kind) for index, item in enumerate(value)]
        return tuple(made) if isinstance(value, tuple) else made
    return value


def _whole(directory: Path, name: str) -> dict[str, Stored]:
    file = _opened(directory / f"{name}.safetensors")
    return {key: Stored(key, [(_all_of(file.get_slice(key).get_shape()), file)]) for key in file.keys()}  # noqa: SIM118


def _parts(directory: Path, name: str) -> dict[str, Stored]:
    ranks = json.loads((directory / f"{name}-0.json").read_text(encoding="utf-8"))["ranks"]
    found: dict[str, list[tuple[Place, Any]]] = {}
    for rank in range(ranks):
        try:
            said = json.loads((directory / f"{name}-{rank}.json").read_text(encoding="utf-8"))["parts"]
        except FileNotFoundError:
            raise DataError(f"the part of rank {rank} is missing", where=str(directory)) from None
        file = _opened(directory / f"{name}-{rank}.safetensors")
        for key, part in said.items():
            place = Place(tuple(part["shape"]), tuple(part["offsets"]), tuple(part["sizes"]))
            found.setdefault(key, []).append((place, file))
    return {key: Stored(key, parts) for key, parts in found.items()}


def _all_of(shape: Sequence[int]) -> Place:
    return Place(tuple(shape), (0,) * len(shape), tuple(shape))


def _opened(path: Path) -> Any:
    return safe_open(path, framework="pt", device="cpu")


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")
