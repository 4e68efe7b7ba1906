"""What the models have learnt, added up."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

from clew.config import config
from clew.merging.methods.base import MergeMethod

if TYPE_CHECKING:
    from torch import Tensor

    from clew.merging.group import Group


@config
class TaskArithmetic(MergeMethod):
    """Task arithmetic (Ilharco et al. 2023, arXiv:2212.04089): the base, and a scaled sum of the task vectors.

    m = b + scale sum_i w_i (x_i - b). Each w_i is 1 unless weights are given; a negative one takes away what a
    model has learnt. It is computed as (1 - scale sum_i w_i) b + scale sum_i w_i x_i, which is the same and gives
    x_i itself for the weight 1 alone.
    """

    uses_base: ClassVar[bool] = True
    any_weights: ClassVar[bool] = True

    scale: float = 1.0
    """Factor of the sum of the task vectors."""

    def combine(self, group: Group) -> Tensor:
        """Return the sum, rounded once from float64."""
        from clew.merging.group import weighted_sum

        factors = [self.scale * weight for weight in group.weights]
        rest = math.fsum([1.0, *(-factor for factor in factors)])
        return group.elementwise(lambda block: weighted_sum([rest, *factors], [block.base, *block.tensors]))
