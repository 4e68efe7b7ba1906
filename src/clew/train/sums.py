"""Loss and gradient norm since the last measurement, summed on the device."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from clew.errors import NotFinite


class Sums:
    """Sums that stay on the device: to fetch them in every step would make it wait.

    Args:
        device: Where losses come from.
    """

    def __init__(self, device: torch.device) -> None:
        self._loss = torch.zeros((), device=device)
        self._norm = torch.zeros((), device=device)
        self._steps = 0

    def add(self, loss: Tensor, norm: Tensor) -> None:
        """Add a step's loss and gradient norm, both 0-d; waits for nothing."""
        self._loss += loss
        self._norm += norm
        self._steps += 1

    def means(self, step: int) -> tuple[float, float]:
        """Fetch the mean loss and gradient norm; the one place where the loop waits for the device.

        Args:
            step: The number of finished steps, for the error.

        Raises:
            NotFinite: If one of them was not finite.
        """
        loss, norm = (float(value) for value in torch.stack((self._loss, self._norm)).cpu())
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise NotFinite(
                f"the loss or its gradient is no longer finite at step {step}",
                hint="lower training.lr or training.max_grad_norm, or raise training.schedule.warmup",
            )
        steps = max(1, self._steps)
        return loss / steps, norm / steps

    def clear(self) -> None:
        """Begin anew."""
        self._loss.zero_()
        self._norm.zero_()
        self._steps = 0

    def state(self) -> list[Any]:
        """Return what :meth:`load` takes; copies, since the sums are changed where they are."""
        return [self._loss.clone(), self._norm.clone(), self._steps]

    def load(self, state: list[Any]) -> None:
        """Go on from a state."""
        loss, norm, self._steps = state
        self._loss.copy_(loss)
        self._norm.copy_(norm)
