"""The weighted mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clew.config import config
from clew.merging.methods.base import MergeMethod

if TYPE_CHECKING:
    from torch import Tensor

    from clew.merging.group import Group


@config
class Average(MergeMethod):
    """The weighted mean of the weights, a model soup (Wortsman et al. 2022, arXiv:2203.05482).

    m = sum_i s_i x_i, where the shares s_i are the weights scaled to a sum of 1. Equal models give themselves bitwise
    in float32 and narrower dtypes, and so does one whose share is 1.
    """

    def combine(self, group: Group) -> Tensor:
        """Return the mean, rounded once from float64."""
        from clew.merging.group import weighted_sum

        return group.elementwise(lambda block: weighted_sum(group.shares, block.tensors))
