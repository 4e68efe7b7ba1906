"""Any linear combination."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from clew.config import config
from clew.errors import UserError
from clew.merging.methods.base import MergeMethod

if TYPE_CHECKING:
    from torch import Tensor

    from clew.merging.group import Group


@config
class Linear(MergeMethod):
    """A linear combination of the weights, with factors that may be negative (extrapolation).

    m = sum_i w_i x_i, divided by sum_i w_i if it is normalised.
    """

    any_weights: ClassVar[bool] = True

    normalize: bool = True
    """Divide by the sum of the weights; otherwise they are taken as they are."""

    def check(self, weights: Sequence[float]) -> None:
        """Refuse, besides, weights whose sum cannot be divided by."""
        super().check(weights)
        if (self.normalize and abs(sum(weights)) < 1e-9 * sum(map(abs, weights))) or not any(weights):
            raise UserError("the weights add up to 0", where=f"weights={list(weights)}", hint="set normalize=false")

    def combine(self, group: Group) -> Tensor:
        """Return the combination, rounded once from float64."""
        from clew.merging.group import weighted_sum

        factors = group.shares if self.normalize else group.weights
        return group.elementwise(lambda block: weighted_sum(factors, block.tensors))
