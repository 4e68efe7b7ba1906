"""Where a live run looks up in Lightning: between two batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning.pytorch.trainer.connectors.data_connector import _DataLoaderSource

from clew.live.lightning_data import TrainData, length


class Guarded:
    """What Lightning iterates over in place of the loader: before each batch there is a boundary.

    Args:
        loader: The loader that it was given.
        data: Where the batches come from.
        stand: Called before each batch.
    """

    def __init__(self, loader: Any, data: TrainData, stand: Callable[[], None]) -> None:
        self.dataset = getattr(loader, "dataset", None)
        # Lightning tells these the number of the epoch.
        self.sampler = getattr(loader, "sampler", None)
        self.batch_sampler = getattr(loader, "batch_sampler", None)
        self._length = length(loader)
        self._data = data
        self._stand = stand

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Guarded:
        self._data.begin()
        return self

    def __next__(self) -> Any:
        self._stand()
        return next(self._data)

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: that there is a state lets Lightning trust the position, which is kept elsewhere."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take nothing over."""


class GuardedSource(_DataLoaderSource):  # type: ignore[misc]
    """Gives Lightning the training loader, guarded.

    Args:
        source: Where Lightning has its loader from.
        guard: Puts the guard around it.
    """

    def __init__(self, source: _DataLoaderSource, guard: Callable[[Any], Guarded]) -> None:
        super().__init__(source.instance, source.name)
        self._guard = guard

    def dataloader(self) -> Guarded:
        """Return the loader, guarded."""
        return self._guard(super().dataloader())
