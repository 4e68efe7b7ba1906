"""What a ``Trainer`` has summed since it last logged: a part of its state that it does not save itself."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import Trainer

_FILE = "log_window.json"


class LogWindow:
    """Takes the sums out of a trainer, and puts them back: the first means after a resume are then the right ones.

    Args:
        trainer: A ``Trainer``; those of TRL also collect metrics, as lists of numbers under their names.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._before: tuple[int, Tensor | float] = (0, 0.0)

    def step_loss(self) -> Tensor:
        """Return the loss [] of the step that was just made, on its device; to be called after each, once."""
        since, total = self._trainer._globalstep_last_logged, self._trainer._tr_loss.detach().clone()
        begun, before = self._before
        self._before = since, total
        loss: Tensor = total - before if begun == since else total
        return loss

    def save(self, directory: Path) -> None:
        """Write the sums as they are between two steps."""
        state = {
            "loss": float(self._trainer._tr_loss),
            "since": self._trainer._globalstep_last_logged,
            "metrics": dict(self._collected()),
        }
        # A metric may be NaN here, which Python writes and reads.
        (directory / _FILE).write_text(json.dumps(state), encoding="utf-8")

    def load(self, directory: Path, step: int) -> None:
        """Put the sums back, into a trainer that trains already: when it begins, it sets them to nothing.

        Args:
            directory: Where they were written; checkpoints of versions without them begin a new window.
            step: The finished steps of that state.
        """
        state: dict[str, Any] = {"loss": 0.0, "since": step, "metrics": {}}
        if (directory / _FILE).is_file():
            state = json.loads((directory / _FILE).read_text(encoding="utf-8"))
        self._trainer._tr_loss.fill_(state["loss"])
        self._trainer._globalstep_last_logged = state["since"]
        self._before = state["since"], state["loss"]
        collected = self._collected()
        collected.clear()
        for name, values in state["metrics"].items():
            collected[name] = values

    @property
    def is_finite(self) -> bool:
        """Whether the losses since the last log are; this waits for the device."""
        return math.isfinite(float(self._trainer._tr_loss))

    def forget_loss(self) -> None:
        """Begin a new sum of losses: ``Trainer`` subtracts the sum from itself, and what is not finite would stay."""
        self._trainer._tr_loss.zero_()

    def _collected(self) -> dict[str, Any]:
        found: dict[str, Any] = getattr(self._trainer, "_metrics", {"train": {}})["train"]
        return found
