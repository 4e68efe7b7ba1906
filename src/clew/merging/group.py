"""The same tensor of several models, walked over in blocks of float64.

Whole tensors stay in the dtype in which they are stored, and only a block at a time is widened: the memory that is
needed beside the tensors themselves does not grow with them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clew.errors import UserError

BLOCK = 1 << 16
"""Elements of a block: 512 KiB of float64. Random masks are drawn a block at a time, so it decides what they are."""


@dataclass(frozen=True)
class Block:
    """Neighbouring elements of a tensor, flat and in float64."""

    tensors: list[Tensor]
    """One [n] for each model."""
    base: Tensor
    """[n]; zeros where there is no base."""
    fisher: list[Tensor] | None
    """One [n] for each model, not negative; None where nothing is known."""

    @property
    def deltas(self) -> list[Tensor]:
        """What each model adds to the base, [n]: its task vector."""
        return [tensor - self.base for tensor in self.tensors]


@dataclass(frozen=True)
class Group:
    """What a method makes one tensor of."""

    name: str
    """The tensor's name."""
    tensors: Sequence[Tensor]
    """One for each model, all of one shape, of any floating dtypes."""
    weights: Sequence[float]
    """One for each model."""
    dtype: torch.dtype
    """Of the result, which is rounded to it from float64."""
    base: Tensor | None = None
    """What the models came from; None stands for zeros, as for tensors that are differences already."""
    fisher: Sequence[Tensor] | None = None
    """The diagonal Fisher information of each model, in the shape of the tensors."""
    seed: int = 0
    """Of whatever a method draws."""

    @property
    def shares(self) -> list[float]:
        """The weights, scaled to a sum of 1."""
        total = math.fsum(self.weights)
        return [weight / total for weight in self.weights]

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.tensors[0].numel()

    def blocks(self) -> Iterator[Block]:
        """Yield the elements in their order."""
        flat = [tensor.reshape(-1) for tensor in self.tensors]
        base = None if self.base is None else self.base.reshape(-1)
        fisher = None if self.fisher is None else [tensor.reshape(-1) for tensor in self.fisher]
        for start in range(0, self.size, BLOCK):
            place = slice(start, start + BLOCK)
            wide = [tensor[place].to(torch.float64) for tensor in flat]
            yield Block(
                wide,
                torch.zeros_like(wide[0]) if base is None else base[place].to(torch.float64),
                None if fisher is None else [tensor[place].to(torch.float64) for tensor in fisher],
            )

    def elementwise(self, function: Callable[[Block], Tensor]) -> Tensor:
        """Return the tensor that a function makes block by block.

        Args:
            function: From a block of n elements to [n] float64.

        Raises:
            UserError: If something of it is not finite.
        """
        merged = torch.empty(self.tensors[0].shape, dtype=self.dtype)
        flat = merged.view(-1)
        for number, block in enumerate(self.blocks()):
            part = flat[number * BLOCK : (number + 1) * BLOCK]
            part.copy_(function(block))
            if not torch.isfinite(part).all():
                raise UserError(
                    f"what {self.name} is merged to is not finite",
                    hint="one of the models has diverged, or the dtype overflows",
                )
        return merged


def weighted_sum(weights: Sequence[float], tensors: Sequence[Tensor]) -> Tensor:
    """Return the sum of weight times tensor. A weight of 0 leaves its tensor out, whatever is in it."""
    total: Tensor | None = None
    for weight, tensor in zip(weights, tensors, strict=True):
        if weight:
            part = tensor * weight
            total = part if total is None else total.add_(part)
    return torch.zeros_like(tensors[0]) if total is None else total
