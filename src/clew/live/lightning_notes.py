"""What a Lightning trainer logs, for the journal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from clew.live.lightning_undisturbed import fetched


class Notes:
    """What a trainer has logged since the last look, as far as it is due.

    Nothing is fetched from the device before :meth:`take`. What a trainer logs anew is a new tensor; what it only
    remembers is the old one.
    """

    def __init__(self) -> None:
        self.news = False
        self.rate: float | None = None
        self._seen: dict[str, Any] = {}
        self._step: dict[str, Any] = {}

    def begin(self, trainer: Any) -> None:
        """Take what is known already for old."""
        self._seen = dict(trainer.callback_metrics)

    def of_step(self, logged: Mapping[str, Any], loss: Tensor | None) -> None:
        """Keep what was logged in a step."""
        found = self._fresh(logged)
        if loss is not None:
            found.setdefault("loss", loss)
        if self.rate is not None:
            found["lr"] = self.rate
        self._step = found

    def take(self, trainer: Any) -> dict[str, float]:
        """Return what is due, as numbers."""
        if not self._step and not self.news:
            return {}
        after = self._fresh(trainer.callback_metrics) if self.news else {}
        found, self._step, self.news = {**after, **self._step}, {}, False
        return fetched(found)

    def _fresh(self, logged: Mapping[str, Any]) -> dict[str, Any]:
        """What is new; of a number that is logged for steps and epochs, its step's value has the plain name."""
        found = {name: value for name, value in logged.items() if self._seen.get(name) is not value}
        self._seen.update(found)
        twice = {name for name in found if name.endswith("_step") and name.removesuffix("_step") in found}
        return {name: value for name, value in found.items() if name not in twice}


def rate(trainer: Any) -> float | None:
    """Return the learning rate of the first group; None where it is kept on the device, or there is none."""
    optimizers = trainer.optimizers
    found = optimizers[0].param_groups[0].get("lr") if optimizers else None
    return found if isinstance(found, int | float) else None
