"""What of a batch, a sum and a state is this process's own: everything, or a part; see :mod:`clew.train.meshed`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn
from torch.nn import functional as F

from clew.checkpoints.shards import Place, is_sharded, read_state
from clew.checkpoints.state import load_state, save_state
from clew.data.order import Ids
from clew.data.packing import IGNORED, Batch, Samples


class Slices(Protocol):
    """How a training is cut among processes. What communicates must be called by all of them, in the same order."""

    def batch(self, samples: Samples, ids: Ids) -> Batch:
        """Return this process's samples of a global batch."""

    def total(self, tensor: Tensor) -> Tensor:
        """Return the sum of a tensor over the slices."""

    def count(self, number: int) -> int:
        """Return the sum of a number over the slices."""

    def before_pass(self, model: nn.Module, *, last: bool) -> None:
        """Say before a forward pass, whose backward pass follows, whether it is the last one of its step."""

    def rest(self, model: nn.Module) -> None:
        """Leave the model as it is between two steps, after a forward pass that no backward pass follows."""

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the sum of the cross-entropies, 0-d, in nats, of logits [N, V] and targets [N]."""

    def rows(self, own: Tensor, count: int) -> Tensor:
        """Return the rows of a whole batch of so many samples, from what this process has of each of its own."""

    def said(self, make: Callable[[], dict[str, float]]) -> dict[str, float]:
        """Return what the first process makes, in all of them."""

    def clip(self, parameters: Iterable[Tensor], max_norm: float) -> Tensor:
        """Scale gradients down to a norm, that of all parts together; return it as it was, 0-d."""

    def own(self, state: Any) -> Any:
        """Return a nested state with this process's parts in the place of sharded tensors."""

    def places(self, state: Any) -> Mapping[str, Place]:
        """Return where the parts of sharded tensors lie, by their paths in a state."""

    def whole(self, tensors: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
        """Yield named tensors as they are without sharding, one at a time."""

    def write(self, directory: Path, name: str, state: Any, places: Mapping[str, Place]) -> None:
        """Write what :meth:`own` returned, in any thread."""

    def read(self, directory: Path, name: str, like: Mapping[str, Tensor]) -> Any:
        """Return a state that any number of processes wrote.

        Args:
            directory: Where it lies.
            name: Stem of its files.
            like: The parameters. What has the name and the shape of one comes as that one is: in parts on a mesh.
        """


class Whole:
    """One process, which has everything."""

    def batch(self, samples: Samples, ids: Ids) -> Batch:
        """Return the batch."""
        return samples.batch(ids)

    def total(self, tensor: Tensor) -> Tensor:
        """Return the tensor."""
        return tensor

    def count(self, number: int) -> int:
        """Return the number."""
        return number

    def before_pass(self, model: nn.Module, *, last: bool) -> None:
        """There is nobody to tell."""

    def rest(self, model: nn.Module) -> None:
        """There is nothing to do."""

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Compute it as PyTorch does."""
        return F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum")

    def rows(self, own: Tensor, count: int) -> Tensor:
        """Return the tensor."""
        return own

    def said(self, make: Callable[[], dict[str, float]]) -> dict[str, float]:
        """Make it."""
        return make()

    def clip(self, parameters: Iterable[Tensor], max_norm: float) -> Tensor:
        """Clip as PyTorch does."""
        return nn.utils.clip_grad_norm_(parameters, max_norm)

    def own(self, state: Any) -> Any:
        """Return the state."""
        return state

    def places(self, state: Any) -> Mapping[str, Place]:
        """Nothing is in parts."""
        return {}

    def whole(self, tensors: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
        """Yield what there is."""
        yield from tensors

    def write(self, directory: Path, name: str, state: Any, places: Mapping[str, Place]) -> None:
        """Write a state in one file."""
        save_state(directory, name, state)

    def read(self, directory: Path, name: str, like: Mapping[str, Tensor]) -> Any:
        """Return a state with whole tensors."""
        return read_state(directory, name) if is_sharded(directory, name) else load_state(directory, name)
