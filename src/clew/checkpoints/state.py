"""Nested state on disk without pickle: tensors in safetensors, everything else in JSON beside them.

``{"model": {"w": tensor}, "step": 3, "groups": [{"lr": 0.1}]}`` becomes ``NAME.safetensors`` with the tensors, and
``NAME.json`` with the tree, in which a tensor's place holds ``{"$tensor": its name}``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

_TENSOR, _TUPLE, _ITEMS = "$tensor", "$tuple", "$items"


def save_state(directory: Path, name: str, state: Any) -> None:
    """Write a nested state of dicts, lists, tuples, tensors and JSON scalars.

    Args:
        directory: An existing folder.
        name: Stem of the two files.
        state: The state; dict keys may be strings or integers.

    Raises:
        TypeError: If it holds anything else; named by its path.
    """
    tensors: dict[str, torch.Tensor] = {}
    tree = split(state, "", tensors)
    save_file(tensors, directory / f"{name}.safetensors")
    (directory / f"{name}.json").write_text(json.dumps(tree), encoding="utf-8")


def load_state(directory: Path, name: str) -> Any:
    """Read what :func:`save_state` wrote; tensors arrive on the CPU with their dtype."""
    tensors = load_file(directory / f"{name}.safetensors")
    return joined(json.loads((directory / f"{name}.json").read_text(encoding="utf-8")), tensors)


def split(value: Any, path: str, tensors: dict[str, torch.Tensor]) -> Any:
    """Return the tree of a state as JSON holds it, and put its tensors into a mapping, by the names that it gives them.

    Args:
        value: The state.
        path: Where it stands in a larger one, such as ``.model``; empty for a whole one.
        tensors: Gets copies of them; the name of each is its number and its path.

    Raises:
        TypeError: If it holds what a checkpoint cannot hold; named by its path.
    """
    if isinstance(value, torch.Tensor):
        # The number keeps names apart that dots would make alike. A clone, because safetensors refuses shared memory.
        name = f"{len(tensors)}{path}"
        tensors[name] = value.detach().contiguous().clone()
        return {_TENSOR: name}
    if isinstance(value, dict):
        return {_ITEMS: [[key, split(item, f"{path}.{key}", tensors)] for key, item in value.items()]}
    if isinstance(value, tuple):
        return {_TUPLE: [split(item, f"{path}.{index}", tensors) for index, item in enumerate(value)]}
    if isinstance(value, list):
        return [split(item, f"{path}.{index}", tensors) for index, item in enumerate(value)]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"state{path} is a {type(value).__name__}, which a checkpoint cannot hold")


def joined(value: Any, tensors: Mapping[str, Any]) -> Any:
    """Return the state of a tree, with what a mapping has under the names of its tensors."""
    if isinstance(value, list):
        return [joined(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if _TENSOR in value:
        return tensors[value[_TENSOR]]
    if _TUPLE in value:
        return tuple(joined(item, tensors) for item in value[_TUPLE])
    return {key: joined(item, tensors) for key, item in value[_ITEMS]}
