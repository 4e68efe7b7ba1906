"""Merged tensors on their way: in a file until all of them are there, so that a merge happens whole or not at all."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from clew.merging.group import BLOCK
from clew.merging.merge import Merge
from clew.merging.weights import Files, TensorFile, Weights


@dataclass
class Change:
    """How far weights have moved, summed up in float64.

    Attributes:
        moved: Square of the Euclidean norm of the change.
        before: The same of what changed.
    """

    moved: float = 0.0
    before: float = 0.0

    def add(self, old: Tensor, new: Tensor) -> None:
        """Take another tensor into account, in blocks, whatever their dtypes."""
        if not old.is_floating_point():
            return
        here, there = old.reshape(-1), new.reshape(-1)
        for start in range(0, old.numel(), BLOCK):
            place = slice(start, start + BLOCK)
            wide = here[place].double()
            self.before += float(wide @ wide)
            wide = there[place].double() - wide
            self.moved += float(wide @ wide)

    @property
    def norms(self) -> dict[str, float]:
        """The norm of the change, and its ratio to the norm before; the latter is left out where there was none."""
        norm, before = math.sqrt(self.moved), math.sqrt(self.before)
        return {"norm": norm, **({"relative": norm / before} if before else {})}


def stage(merge: Merge, live: Weights, folder: Path) -> tuple[Weights, Change]:
    """Carry out a merge into a file, one tensor in memory at a time.

    Args:
        merge: The merge.
        live: What the result will replace; only read.
        folder: Where the file is made.

    Returns:
        The merged tensors, and how far they are from the live ones.

    Raises:
        UserError: If something of it is not finite.
    """
    change, made = Change(), folder / "merged"
    made.mkdir()
    with TensorFile(made / "model.safetensors", merge.layout) as file:
        for name, tensor in merge:
            change.add(live.read(name), tensor)
            file.write(name, tensor)
    return Files(made), change


def stage_information(found: Mapping[str, Tensor], names: Mapping[str, object], folder: Path) -> Weights:
    """Put the Fisher information of a model into a file.

    Args:
        found: By name of the parameter.
        names: The tensors that are merged; others are left out.
        folder: Made here.
    """
    from safetensors.torch import save_file

    folder.mkdir()
    kept = {name: tensor.detach().cpu().contiguous() for name, tensor in found.items() if name in names}
    save_file(kept, folder / "model.safetensors")
    return Files(folder)
