"""What the models have learnt, thinned out at random."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from clew.config import config
from clew.merging.methods.base import MergeMethod
from clew.merging.methods.ties import agreed

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from clew.merging.group import Block, Group


@config
class Dare(MergeMethod):
    """DARE (Yu et al. 2024, arXiv:2311.03099): drop elements of the task vectors at random, and rescale the rest.

    d_i = M_i (x_i - b) / density, M_i being 1 with the probability density, else 0: what is expected stays the same.
    Then linear: m = b + scale sum_i w_i d_i; or ties: signs are elected and the mean taken as in the method ties,
    without its trimming. Each w_i is 1 unless weights are given.

    The masks follow from the run's seed, the tensor's name and the model's place, so a repetition gives the same; for
    a density below 1, a model merged with itself is not itself, and the order of the models counts.
    """

    uses_base: ClassVar[bool] = True
    any_weights: ClassVar[bool] = True

    density: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Probability that an element of a task vector stays."""
    combination: Literal["linear", "ties"] = "linear"
    """What is done with the thinned task vectors."""
    scale: float = 1.0
    """Factor of the merged task vector."""

    def check(self, weights: Sequence[float]) -> None:
        """With ties the weights are shares."""
        super().check(weights)
        if self.combination == "ties":
            MergeMethod().check(weights)

    def combine(self, group: Group) -> Tensor:
        """Return the base with the merged task vector, rounded once from float64."""
        from clew.merging.group import weighted_sum

        draws = [_generator(group, model) for model in range(len(group.tensors))]

        def together(deltas: Sequence[Tensor]) -> Tensor:
            if self.combination == "ties":
                return agreed(deltas, group.weights)
            return weighted_sum(group.weights, deltas)

        def merged(block: Block) -> Tensor:
            kept = [self._thinned(delta, draw) for delta, draw in zip(block.deltas, draws, strict=True)]
            return block.base + self.scale * together(kept)

        return group.elementwise(merged)

    def _thinned(self, delta: Tensor, generator: torch.Generator) -> Tensor:
        import torch

        if self.density == 1:
            return delta
        stays = torch.rand(delta.shape, generator=generator, dtype=torch.float64) < self.density
        return delta * stays / self.density


def _generator(group: Group, model: int) -> torch.Generator:
    import torch

    word = f"{group.seed}\0{model}\0{group.name}".encode()
    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(word).digest()[:8]) >> 1)
