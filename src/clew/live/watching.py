"""What looks at a model between two steps of a trainer, and judges it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol


class Watch(Protocol):
    """Looks at the model between two steps of a ``Trainer``, and judges it."""

    @property
    def is_out(self) -> bool:
        """Whether the training should end now."""

    def measure(self, step: int, *, last: bool) -> Mapping[str, float]:
        """Return what is due to be measured after a step; empty when nothing is, or when it was done already."""

    def ask(self) -> Mapping[str, float]:
        """Measure now what else is measured when it is due, and remember nothing of it; empty when there is nothing."""

    def judge(self, step: int, measured: Mapping[str, float]) -> tuple[float | None, bool]:
        """Return how good the state is, the lowest being the best, and whether to save it for that at once."""

    def save(self, directory: Path) -> None:
        """Write what is known so far; see :class:`clew.session.Surface`."""

    def load(self, directory: Path) -> None:
        """Take over what :meth:`save` wrote."""


class LossWatch:
    """Measures nothing by itself; the best state is the one with the lowest validation loss that was measured."""

    is_out = False

    def measure(self, step: int, *, last: bool) -> Mapping[str, float]:
        """Return nothing."""
        return {}

    def ask(self) -> Mapping[str, float]:
        """Return nothing."""
        return {}

    def judge(self, step: int, measured: Mapping[str, float]) -> tuple[float | None, bool]:
        """Return the validation loss."""
        return measured.get("eval_loss"), False

    def save(self, directory: Path) -> None:
        """Write nothing."""

    def load(self, directory: Path) -> None:
        """Read nothing."""
