"""The mean in which each model counts where it is sure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from clew.config import config
from clew.merging.methods.base import MergeMethod

if TYPE_CHECKING:
    from torch import Tensor

    from clew.merging.group import Block, Group


@config
class Fisher(MergeMethod):
    """Fisher-weighted averaging (Matena & Raffel 2022, arXiv:2111.09832).

    m = sum_i w_i F_i x_i / sum_i w_i F_i, element by element, F_i being the diagonal Fisher information of model i. For
    losses that are quadratic with these diagonals it is the minimiser of their weighted sum.

    Before that, each element's F_i are divided by the largest among the models. This cancels in the quotient, so no
    small number has to be added to it, and the scale of the F_i does not count. Where all F_i are 0, or equal, or
    unknown (a buffer), it is the plain weighted mean.
    """

    samples: Annotated[int, Field(ge=1)] = 64
    """Examples of the task that the information is estimated on; fewer if there are fewer."""
    split: Literal["train", "validation", "test"] = "train"
    """Which of the task's examples."""
    max_length: Annotated[int, Field(ge=2)] = 1024
    """Tokens of an example; a longer one is cut off."""

    def combine(self, group: Group) -> Tensor:
        """Return the mean, rounded once from float64."""
        return group.elementwise(lambda block: _mean(group.shares, block))


def _mean(shares: list[float], block: Block) -> Tensor:
    import torch

    from clew.merging.group import weighted_sum

    if block.fisher is None:
        return weighted_sum(shares, block.tensors)
    used = [index for index, share in enumerate(shares) if share]
    fisher = torch.stack([block.fisher[index] for index in used])
    largest = fisher.amax(0)
    relative = torch.where(largest > 0, fisher / largest, 1.0)
    weight = relative * torch.tensor([shares[index] for index in used], dtype=torch.float64)[:, None]
    parts = weight / weight.sum(0) * torch.stack([block.tensors[index] for index in used])
    return weighted_sum([1.0] * len(used), list(parts))  # `sum` would begin with 0, in which -0 is lost
