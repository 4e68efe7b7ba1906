"""Figures that are computed on the device and fetched all at once.

Each section of a report adds its tensors and gets back where they will stand; when all have done so, one transfer
brings everything, and the sections read their part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

PIECE = 1 << 24
"""Elements that are looked at in one go: what is computed on the way needs 64 MB each, however large a tensor is."""

Fetched = Sequence[float]
Section = Callable[[Fetched], Any]
"""Makes a section of a report of what was fetched."""


class Collector:
    """Gathers tensors on one device.

    Args:
        device: Where most of them are; others are brought there, which the host does not wait for.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        # Apple's GPUs have no float64; counts above 2^24 are rounded there.
        self.dtype = torch.float32 if device.type == "mps" else torch.float64
        self._parts: list[Tensor] = []
        self._length = 0

    def add(self, figures: Tensor) -> slice:
        """Add figures, and return where they stand in what :meth:`fetch` returns."""
        part = figures.detach().reshape(-1).to(self.device, self.dtype, non_blocking=True)
        where = slice(self._length, self._length + part.numel())
        self._parts.append(part)
        self._length = where.stop
        return where

    def fetch(self) -> list[float]:
        """Bring everything to the host: the one time that it waits for the device."""
        if not self._parts:
            return []
        fetched: list[float] = torch.cat(self._parts).cpu().tolist()
        return fetched


def pieces(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Yield tensors of one size in parts of at most :data:`PIECE` elements, in at least float32."""
    for parts in zip(*(torch.split(tensor.detach().reshape(-1), PIECE) for tensor in tensors), strict=True):
        yield tuple(part if part.dtype is torch.float64 else part.float() for part in parts)


def measure(tensor: Tensor) -> Tensor:
    """Return ``[NaN, infinite, sum of squares]`` of a tensor's elements, as a tensor [3] on its device."""
    total = squares(tensor)
    if at_hand(tensor) and total.isfinite():
        return torch.stack((torch.zeros_like(total), torch.zeros_like(total), total))
    lost = torch.zeros(2, dtype=total.dtype, device=tensor.device)
    for (part,) in pieces(tensor):
        lost = lost + torch.stack((part.isnan().count_nonzero(), part.isinf().count_nonzero())).to(total.dtype)
    return torch.cat((lost, total[None]))


def squares(tensor: Tensor) -> Tensor:
    """Return the sum of squares of a tensor's elements, in at least float32, a tensor [] on its device."""
    wide = torch.float64 if tensor.dtype is torch.float64 else torch.float32
    norm: Tensor = torch.linalg.vector_norm(tensor.detach(), dtype=wide)
    return norm.square()


def at_hand(tensor: Tensor) -> bool:
    """Whether a figure can be read at once: on the host nobody waits for a device, and what is finite need not be
    counted, which takes twenty times as long as the norm.
    """
    return tensor.device.type == "cpu"
