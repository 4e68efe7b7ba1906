"""What a merge method is. Nothing here imports torch, so that configs can be read without it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from clew.config import config
from clew.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from clew.merging.group import Group


@config
class MergeMethod:
    """How the same tensor of several models becomes one tensor. A subclass defines :meth:`combine`."""

    uses_base: ClassVar[bool] = False
    """Whether what counts is how models differ from the one that they came from."""
    any_weights: ClassVar[bool] = False
    """Whether weights are factors, which may be negative, rather than shares of a whole."""

    @property
    def adds_models(self) -> bool:
        """Whether :meth:`references` has something to say."""
        return False

    def references(self, runs: Path) -> list[str]:
        """Return models that the method's own options name, to be merged after the others.

        Args:
            runs: The folder of runs.

        Raises:
            UserError: If there are none where the options say.
        """
        return []

    def settled(self, runs: Path) -> Mapping[str, Any]:
        """Return options that are open and would mean other models later, with what they mean now.

        Args:
            runs: The folder of runs.

        Raises:
            UserError: As :meth:`references`.
        """
        return {}

    def check(self, weights: Sequence[float]) -> None:
        """Check the number of models and their weights.

        Args:
            weights: One for each model.

        Raises:
            UserError: In the words of the config.
        """
        if len(weights) < 2:
            raise UserError(f"a merge needs at least two models, not {len(weights)}", hint="name them under models")
        if not all(map(math.isfinite, weights)):
            raise UserError("weights must be finite", where=f"weights={list(weights)}")
        if not self.any_weights and (min(weights) < 0 or not math.fsum(weights) > 0):
            raise UserError(
                "weights are shares of a whole here: none may be negative, and not all of them 0",
                where=f"weights={list(weights)}",
                hint="linear with normalize=false and task_arithmetic take any factors",
            )

    def combine(self, group: Group) -> Tensor:
        """Return the merged tensor, in ``group.dtype``.

        Args:
            group: The tensors, one for each model.

        Raises:
            UserError: If what comes out is not finite.
        """
        raise NotImplementedError
