"""Along the arc between two models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from clew.config import config
from clew.errors import UserError
from clew.merging.methods.base import MergeMethod

if TYPE_CHECKING:
    from torch import Tensor

    from clew.merging.group import Block, Group


@config
class Slerp(MergeMethod):
    """Spherical linear interpolation of two models (Shoemake 1985), tensor by tensor.

    m = (sin((1-t) a) x_1 + sin(t a) x_2) / sin(a), where t is the second model's share, and a is the angle between the
    tensors as vectors: cos(a) = <x_1, x_2> / (|x_1| |x_2|). Where they are nearly parallel or opposite, or one of them
    is zero, it is (1-t) x_1 + t x_2.
    """

    parallel: Annotated[float, Field(gt=0, le=1)] = 0.9995
    """The absolute cosine from which on the interpolation is straight."""

    def check(self, weights: Sequence[float]) -> None:
        """Refuse, besides, more than two models."""
        super().check(weights)
        if len(weights) != 2:
            raise UserError(
                f"slerp is between two models, not {len(weights)}", hint="merge two of them first, or take linear"
            )

    def combine(self, group: Group) -> Tensor:
        """Return the point on the arc, rounded once from float64."""
        from clew.merging.group import weighted_sum

        factors = self._factors(group)
        return group.elementwise(lambda block: weighted_sum(factors, block.tensors))

    def _factors(self, group: Group) -> list[float]:
        first, t = group.shares
        products = [_products(block) for block in group.blocks()]
        dot, one, two = (math.fsum(parts) for parts in zip((0.0,) * 3, *products, strict=True))
        norms = math.sqrt(one) * math.sqrt(two)
        cosine = dot / norms if norms > 0 else 1.0
        if abs(cosine) >= self.parallel or not 0 < t < 1:
            return [first, t]
        angle = math.acos(cosine)
        return [math.sin(first * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)]


def _products(block: Block) -> tuple[float, float, float]:
    one, two = block.tensors
    return float(one @ two), float(one @ one), float(two @ two)
