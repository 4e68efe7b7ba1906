"""What a ``Trainer`` has summed since it last logged: a part of its state that it does not save itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import Trainer

_FILE = "log_window.json"


class LogWindow:
    """Takes the sums out of a trainer, and puts them back: the first means after a resume are then the right ones.

    Args:
        trainer: A ``Trainer``; those of TRL also collect metrics, as lists of numbers under their names.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._loaded: dict[str, Any] | None = None

    def save(self, directory: Path) -> None:
        """Write the sums as they are between two steps."""
        state = {
            "loss": float(self._trainer._tr_loss),
            "since": self._trainer._globalstep_last_logged,
            "metrics": dict(self._collected()),
        }
        # A metric may be NaN here, which Python writes and reads.
        (directory / _FILE).write_text(json.dumps(state), encoding="utf-8")

    def load(self, directory: Path) -> None:
        """Remember the sums; checkpoints of versions without them begin a new window."""
        if (directory / _FILE).is_file():
            self._loaded = json.loads((directory / _FILE).read_text(encoding="utf-8"))

    def restore(self) -> None:
        """Put the sums back. To be called when the training begins: until then ``Trainer`` sets them to nothing."""
        if self._loaded is None:
            return
        self._trainer._tr_loss += self._loaded["loss"]
        self._trainer._globalstep_last_logged = self._loaded["since"]
        for name, values in self._loaded["metrics"].items():
            self._collected()[name] = values
        self._loaded = None

    def _collected(self) -> dict[str, Any]:
        found: dict[str, Any] = getattr(self._trainer, "_metrics", {"train": {}})["train"]
        return found
