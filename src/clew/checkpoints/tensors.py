"""Safetensors files as spans of bytes: known from their heads alone, and copied without holding even one whole tensor.

The numbers are never looked at, so what is copied is the same bit by bit, whatever its dtype, and torch is not needed.
Source: the format as huggingface.co/docs/safetensors describes it: 8 bytes with the length of a JSON head, the head,
with the place of each tensor, and the bytes of all of them, without gaps. Several files of one model have an index
beside them, ``{"metadata": {"total_size": bytes}, "weight_map": {tensor: file}}``, as Transformers writes it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from clew.errors import UserError
from clew.runs.files import CHUNK_BYTES, path_inside

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_MOST_HEAD_BYTES = 100_000_000
"""The library's own limit."""
_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32,
    "U32": 32, "F32": 32, "C64": 64, "F64": 64, "I64": 64, "U64": 64,
}  # fmt: skip
"""Of one number, in the library's order, the reverse of which is that of the tensors in its files."""
_RANK = {dtype: rank for rank, dtype in enumerate(_BITS)}


@dataclass(frozen=True)
class Span:
    """Where a tensor's bytes lie.

    Attributes:
        path: The file.
        begin: The first byte in it.
        bytes: How many there are.
        dtype: As the format spells it, such as ``BF16``.
        shape: Of the tensor.
    """

    path: Path
    begin: int
    bytes: int
    dtype: str
    shape: tuple[int, ...]


def spans_of(path: Path) -> dict[str, Span]:
    """Return where the tensors of a file lie, in the order of their bytes; nothing but its head is read.

    Raises:
        UserError: If it is no safetensors file, or not a whole one; with what is wrong.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 2 <= length <= min(size - 8, _MOST_HEAD_BYTES):
                raise _damaged(path, "it has no head, or not all of it")
            head = json.loads(stream.read(length), object_pairs_hook=_unique)
    except OSError as error:
        raise UserError(f"{path.name} cannot be read: {error.strerror}", where=str(path.parent)) from error
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"its head cannot be read: {error}") from error
    if not isinstance(head, dict):
        raise _damaged(path, "its head names no tensors")
    entries = {name: entry for name, entry in head.items() if name != "__metadata__"}
    found = [(name, _span(path, name, entry, 8 + length)) for name, entry in entries.items()]
    found.sort(key=lambda one: (one[1].begin, one[1].bytes))
    end = 8 + length
    for name, span in found:
        if span.begin != end:
            raise _damaged(path, f"{name} does not begin where the tensor before it ends")
        end += span.bytes
    if end != size:
        raise _damaged(path, f"its head says that it has {end:,} bytes, and it has {size:,}")
    return dict(found)


def tensors_of(folder: Path) -> dict[str, Span]:
    """Return where the tensors of a model lie: in one file, or in several and their index.

    Raises:
        UserError: If there are none, or they are not those that the index names; with what is wrong.
    """
    if not (folder / SINGLE).is_file() and (folder / INDEX).is_file():
        return _indexed(folder)
    if not (folder / SINGLE).is_file():
        raise UserError(f"the weights are not there: {SINGLE}", where=str(folder))
    return spans_of(folder / SINGLE)


def write_tensors(tensors: Mapping[str, Span], folder: Path, shard_bytes: int | None = None) -> None:
    """Copy tensors into a folder, as one file, or as several and their index; the same ones give the same files.

    They lie in the order in which the safetensors library writes them, wherever they come from.

    Args:
        tensors: By name.
        folder: An existing folder.
        shard_bytes: How large the tensors of a file may be together; a larger one has a file of its own. None is one
            file.

    Raises:
        UserError: If a file ends before its tensors do.
    """
    ordered = sorted(tensors, key=lambda name: (-_RANK[tensors[name].dtype], name))
    shards = list(_cut(ordered, tensors, shard_bytes or math.inf))
    if len(shards) == 1:
        _write(folder / SINGLE, {name: tensors[name] for name in ordered})
        return
    places: dict[str, str] = {}
    for number, names in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        _write(folder / file, {name: tensors[name] for name in names})
        places |= dict.fromkeys(names, file)
    index = {"metadata": {"total_size": sum(span.bytes for span in tensors.values())}, "weight_map": places}
    (folder / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def are_equal(one: Span, other: Span) -> bool:
    """Whether two tensors are the same bit by bit; a piece of each is in memory at a time."""
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    return all(first == second for first, second in zip(_pieces(one), _pieces(other), strict=True))


def _indexed(folder: Path) -> dict[str, Span]:
    try:
        places = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
        names = {str(name): str(file) for name, file in places.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{INDEX} cannot be used: {type(error).__name__}: {error}", where=str(folder)) from error
    found: dict[str, Span] = {}
    for file in sorted({*names.values()}):
        path = path_inside(folder, file)
        if not path.is_file():
            raise UserError(f"the weights are not there: {file}", where=str(folder))
        there, said = spans_of(path), {name for name, place in names.items() if place == file}
        if missing := sorted(said - there.keys()):
            raise UserError(f"{file} does not hold {missing[0]}, which {INDEX} says", where=str(folder))
        if more := sorted(there.keys() - said):
            raise UserError(f"{file} holds {more[0]}, of which {INDEX} says nothing", where=str(folder))
        found |= there
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands there twice")
    return found


def _span(path: Path, name: str, entry: Any, zero: int) -> Span:
    try:
        dtype, shape, (begin, end) = str(entry["dtype"]), tuple(entry["shape"]), entry["data_offsets"]
        if dtype not in _BITS:
            raise UserError(f"{path.name}: {name} is stored as {dtype}, which is not read", where=str(path.parent))
        fits = all(type(size) is int and size >= 0 for size in (*shape, begin, end))
    except (KeyError, TypeError, ValueError):
        fits = False
    if not fits or end - begin != math.prod(shape) * _BITS[dtype] // 8:
        raise _damaged(path, f"the place of {name} in it is not that of a tensor")
    return Span(path, zero + begin, end - begin, dtype, shape)


def _damaged(path: Path, why: str) -> UserError:
    return UserError(f"{path.name} is damaged: {why}", where=str(path.parent))


def _cut(names: Sequence[str], tensors: Mapping[str, Span], most: float) -> Iterator[list[str]]:
    shard: list[str] = []
    taken = 0
    for name in names:
        if shard and taken + tensors[name].bytes > most:
            yield shard
            shard, taken = [], 0
        shard.append(name)
        taken += tensors[name].bytes
    yield shard


def _write(path: Path, tensors: Mapping[str, Span]) -> None:
    head: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, span in tensors.items():
        head[name] = {"dtype": span.dtype, "shape": span.shape, "data_offsets": [end, end + span.bytes]}
        end += span.bytes
    text = json.dumps(head, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # so that tensors are aligned
    with path.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for span in tensors.values():
            _copy(_pieces(span), stream)


def _copy(pieces: Iterable[bytes], stream: BinaryIO) -> None:
    for piece in pieces:
        stream.write(piece)


def _pieces(span: Span) -> Iterator[bytes]:
    left = span.bytes
    with span.path.open("rb", buffering=0) as stream:
        stream.seek(span.begin)
        while left:
            piece = stream.read(min(left, CHUNK_BYTES))
            if not piece:
                raise _damaged(span.path, "it ends before its tensors do")
            left -= len(piece)
            yield piece
