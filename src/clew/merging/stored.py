"""The tensors of a checkpoint that :func:`clew.checkpoints.state.save_state` wrote, read one at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from clew.merging.heads import stored_names
from clew.merging.weights import layout_of, open_safetensors


class Stored:
    """Named tensors within a nested state.

    Args:
        directory: The checkpoint.
        name: Stem of the state's two files.
        path: The keys that lead to the tensors.

    Raises:
        UserError: If there is no such state, or it cannot be read.
    """

    def __init__(self, directory: Path, name: str, path: Sequence[str]) -> None:
        self._file = open_safetensors(directory / f"{name}.safetensors")
        self._place = stored_names(directory, name, path)
        self.layout = {known: layout_of(self._file.get_slice(place)) for known, place in self._place.items()}

    def read(self, name: str) -> Tensor:
        """Return a tensor; its pages come from the disk as they are used, and can go again."""
        tensor: Tensor = self._file.get_tensor(self._place[name])
        return tensor


def open_state(directory: Path, name: str, path: Sequence[str] = ("model",)) -> Stored:
    """Open the tensors of a checkpoint that :func:`clew.checkpoints.state.save_state` wrote; none is read yet.

    Args:
        directory: The checkpoint.
        name: Stem of the state's two files, such as ``trainer``.
        path: The keys that lead to the tensors in the state. Mappings below are joined by dots, as in a ``state_dict``.

    Returns:
        The tensors under their names in the state.

    Raises:
        UserError: If there is no such state, or it cannot be read.
    """
    return Stored(directory, name, path)
