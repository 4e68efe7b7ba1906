"""One short hash of many tensors, to compare the states of two runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
import xxhash
from torch import Tensor


def tensors_digest(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Return a hash of names, dtypes, shapes and values, bit by bit; 32 hexadecimal digits (XXH3, 128 bits).

    It tells states apart and finds errors, but is no defence against somebody who wants two states to look alike. The
    hash is the same on every device: what is not on the CPU is fetched, which waits for the device.
    """
    found = xxhash.xxh3_128()
    for name, tensor in tensors:
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        if tensor.numel():
            found.update(_bytes(tensor.detach()))
    return str(found.hexdigest())


def _bytes(tensor: Tensor) -> Any:
    """Return a buffer of a tensor's values. A training waits for each operation, so there are as few as can be."""
    if tensor.device.type != "cpu":
        tensor = tensor.cpu()
    if not tensor.is_contiguous():
        tensor = tensor.contiguous()
    if tensor.dtype is torch.float32:
        return tensor.numpy()
    return tensor.reshape(-1).view(torch.uint8).numpy()  # numpy does not know every type


def state_digest(state: Mapping[str, Any] | list[Any] | tuple[Any, ...]) -> str:
    """Return a hash of a nested state of dicts, lists, tensors and scalars, such as an optimizer's ``state_dict``."""
    return tensors_digest(leaves(state))


def leaves(value: Any, path: str = "") -> Iterable[tuple[str, Tensor]]:
    """Yield what :func:`state_digest` is the hash of: a name and a tensor for each leaf of a nested state."""
    if isinstance(value, Tensor):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from leaves(item, f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from leaves(item, f"{path}.{index}")
    else:
        yield f"{path}={value!r}", torch.empty(0)
