"""What the models have learnt, without what contradicts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from clew.config import config
from clew.merging.methods.base import MergeMethod

if TYPE_CHECKING:
    from torch import Tensor

    from clew.merging.group import Block, Group

_NOTHING = 1e-12
"""Relative to the sum of absolute values."""


@config
class Ties(MergeMethod):
    """TIES (Yadav et al. 2023, arXiv:2306.01708): trim, elect a sign, mean of those that agree with it.

    Of each task vector d_i = x_i - b only the largest elements stay, the rest is 0. The sign of sum_i w_i d_i is
    elected, element by element; m = b + scale (sum_i w_i d_i / sum_i w_i) over the models whose d_i has this sign.
    Where the sum is 0, or so near to it that this may be rounding, no sign is elected, and the base stays.

    The paper trims a model's task vector as a whole; here each tensor is trimmed by itself, as in mergekit, so that
    small tensors keep a part and one pass suffices. Elements as large as the smallest that stays stay as well.
    """

    uses_base: ClassVar[bool] = True

    density: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Part of the elements of a task vector that stay."""
    scale: float = 1.0
    """Factor of the merged task vector."""

    def combine(self, group: Group) -> Tensor:
        """Return the base with the merged task vector, rounded once from float64."""
        least = [self._least(group, model) for model in range(len(group.tensors))]

        def merged(block: Block) -> Tensor:
            kept = [delta * (delta.abs() >= size) for delta, size in zip(block.deltas, least, strict=True)]
            return block.base + self.scale * agreed(kept, group.weights)

        return group.elementwise(merged)

    def _least(self, group: Group, model: int) -> float:
        """The size of the smallest element of a model's task vector that stays."""
        from clew.merging.selection import kth_largest

        if self.density == 1 or group.size == 0:
            return 0.0

        def sizes() -> Iterator[Tensor]:
            return ((block.tensors[model] - block.base).abs() for block in group.blocks())

        return kth_largest(sizes, max(1, int(self.density * group.size)))


def agreed(deltas: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Return the weighted mean of those elements that have the sign of the weighted sum; 0 where it is 0.

    Args:
        deltas: Task vectors, each [n] float64; a 0 does not count in the mean.
        weights: One for each, not negative.
    """
    import torch

    from clew.merging.group import weighted_sum

    summed = weighted_sum(weights, deltas)
    # What is left of a sum that cancels is rounding, whose sign would depend on the order of the models.
    counts = summed.abs() > _NOTHING * weighted_sum(weights, [delta.abs() for delta in deltas])
    elected = torch.where(counts, summed.sign(), 0)
    agree = [((delta.sign() == elected) & (elected != 0)).to(torch.float64) for delta in deltas]
    total = weighted_sum(weights, agree)
    parts = weighted_sum(weights, [delta * votes for delta, votes in zip(deltas, agree, strict=True)])
    return torch.where(total > 0, parts / total, 0.0)
