"""Names and shapes of the tensors in safetensors files, from their heads: neither a tensor nor torch is loaded.

A file begins with the length of its head in 8 bytes, and the head, which is JSON
(https://huggingface.co/docs/safetensors, "Format").
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from clew.errors import UserError

_TENSOR, _ITEMS = "$tensor", "$items"
_MAX_HEAD = 100_000_000
"""Bytes; the library refuses longer ones as well."""

Shapes = dict[str, tuple[int, ...]]


def shapes_of(path: Path) -> Shapes:
    """Return the shape of each tensor in a safetensors file.

    Raises:
        UserError: If it cannot be read.
    """
    try:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > _MAX_HEAD:
                raise ValueError("it is no safetensors file")
            head = json.loads(stream.read(length))
        return {name: tuple(map(int, one["shape"])) for name, one in head.items() if name != "__metadata__"}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"the weights cannot be read: {error}", where=str(path.parent)) from error


def shapes_in(folder: Path) -> Shapes:
    """Return the shape of each tensor in the safetensors files of a folder.

    Raises:
        UserError: If there is no such file, or it cannot be read.
    """
    return {name: shape for path in weight_files(folder) for name, shape in shapes_of(path).items()}


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a folder's weights: one, or several and their index.

    Raises:
        UserError: If there is none.
    """
    for name in ("model.safetensors", "adapter_model.safetensors"):
        if (folder / name).is_file():
            return [folder / name]
    found = sorted(folder.glob("*.safetensors"))
    if not found:
        raise UserError("the folder has no safetensors file", where=str(folder))
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        return sorted({folder / Path(name).name for name in json.loads(index.read_text())["weight_map"].values()})
    return found


def stored_names(directory: Path, name: str, path: Sequence[str]) -> dict[str, str]:
    """Return where in its file each tensor is that :func:`clew.checkpoints.state.save_state` wrote.

    Args:
        directory: The checkpoint.
        name: Stem of the state's two files.
        path: The keys that lead to the tensors. Mappings below are joined by dots, as in a ``state_dict``.

    Raises:
        UserError: If there is no such state, or it cannot be read.
    """
    return dict(_tensors(_inner(directory / f"{name}.json", path), ""))


def _inner(file: Path, path: Sequence[str]) -> Any:
    try:
        tree = json.loads(file.read_text(encoding="utf-8"))
        for key in path:
            tree = dict(map(tuple, tree[_ITEMS]))[key]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"this checkpoint has no {'.'.join(path)} in {file.name}", where=str(file.parent)) from error
    return tree


def _tensors(tree: Any, prefix: str) -> Iterator[tuple[str, str]]:
    """Yield the name of each tensor, and the name that it has in the file."""
    if not isinstance(tree, dict):
        return
    if _TENSOR in tree:
        yield prefix, tree[_TENSOR]
    for key, item in tree.get(_ITEMS, ()):
        yield from _tensors(item, f"{prefix}.{key}" if prefix else str(key))
