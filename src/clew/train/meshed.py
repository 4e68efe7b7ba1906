"""A training on a mesh: what of a batch, a sum and a state is this process's own."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.nn import functional as F

from clew.checkpoints.shards import Place, Stored, mapped, open_state, save_shards
from clew.data.order import Ids
from clew.data.packing import IGNORED, Batch, Samples
from clew.sharding.devices import (
    clip_gradients,
    data_rank,
    full_tensor,
    gather_rows,
    global_sum,
    local_part,
    local_slices,
    shard_batch,
    sync_gradients,
)
from clew.sharding.loss import summed_loss


class Meshed:
    """One process of several on a mesh.

    Args:
        mesh: What :func:`clew.sharding.devices.build_mesh` returned.
    """

    def __init__(self, mesh: DeviceMesh) -> None:
        self._mesh = mesh
        self._slice, self._slices = data_rank(mesh)
        self._rank, self._ranks = dist.get_rank(), dist.get_world_size()

    def batch(self, samples: Samples, ids: Ids) -> Batch:
        """Return this process's slice, as long as the longest: all ranks make the same passes.

        What is missing is filled up with a sample without targets, which adds nothing to loss or gradient.
        """
        own = shard_batch(ids, self._slice, self._slices)
        missing = math.ceil(len(ids) / self._slices) - len(own)
        if not missing:
            return samples.batch(own)
        batch = samples.batch(np.concatenate((own, np.repeat(ids[:1], missing))))
        targets = batch.targets.copy()
        targets[len(own) :] = IGNORED
        return Batch(batch.inputs, targets)

    def total(self, tensor: Tensor) -> Tensor:
        """Add up over the slices."""
        return global_sum(tensor, self._mesh)

    def count(self, number: int) -> int:
        """Add up over the slices; on the host, so that nothing waits for the device."""
        return int(global_sum(torch.tensor(number, dtype=torch.int64), self._mesh))

    def before_pass(self, model: nn.Module, *, last: bool) -> None:
        """Tell those that add gradients up."""
        sync_gradients(model, last=last)

    def rest(self, model: nn.Module) -> None:
        """Give back what a forward pass has gathered and no backward pass followed."""
        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Compute it of all logits, or of this process's part of the words."""
        if isinstance(logits, DTensor):
            return summed_loss(logits, targets, ignored=IGNORED)
        return F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum")

    def rows(self, own: Tensor, count: int) -> Tensor:
        """Gather them."""
        return gather_rows(own, count, self._mesh)

    def said(self, make: Callable[[], dict[str, float]]) -> dict[str, float]:
        """Make it in the first process, and send it to the others as JSON."""
        words = json.dumps(make()).encode() if self._rank == 0 else b""
        size = torch.tensor(len(words))
        dist.broadcast(size, 0)
        letters = torch.frombuffer(bytearray(words.ljust(int(size))), dtype=torch.uint8)
        dist.broadcast(letters, 0)
        found: dict[str, float] = json.loads(letters.numpy().tobytes())
        return found

    def clip(self, parameters: Iterable[Tensor], max_norm: float) -> Tensor:
        """Clip by the norm of all parts."""
        return clip_gradients(parameters, max_norm)

    def own(self, state: Any) -> Any:
        """Return the parts of this process."""
        return mapped(state, lambda path, tensor: local_part(tensor.detach()), kind=Tensor)

    def places(self, state: Any) -> Mapping[str, Place]:
        """Return where those lie."""
        found: dict[str, Place] = {}

        def note(path: str, tensor: Tensor) -> None:
            if isinstance(tensor, DTensor):
                found[path] = Place(tuple(tensor.shape), *local_slices(tensor), owned=self._owns(tensor))

        mapped(state, note, kind=Tensor)
        return found

    def whole(self, tensors: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
        """Gather them, one at a time."""
        for name, tensor in tensors:
            yield name, full_tensor(name, tensor)

    def write(self, directory: Path, name: str, state: Any, places: Mapping[str, Place]) -> None:
        """Write the parts of this process."""
        save_shards(directory, name, state, places, rank=self._rank, ranks=self._ranks)

    def read(self, directory: Path, name: str, like: Mapping[str, Tensor]) -> Any:
        """Read the parts of this process, and nothing else of what is sharded."""

        def take(path: str, stored: Stored) -> Any:
            of_weights = path.removeprefix(".model.")
            of_moments = path.removeprefix(".optimizer.").rpartition(".")[0]
            parameter = like.get(of_weights, like.get(of_moments))
            if not isinstance(parameter, DTensor):
                return stored.read()
            if stored.shape != parameter.shape:
                return stored.read() if not stored.shape else stored
            # As the parameter lies in memory: fused optimizers take it for granted that its moments do, too.
            part = torch.empty_like(local_part(parameter.detach()), dtype=stored.dtype)
            stored.fill(part, local_slices(parameter)[0])
            return DTensor.from_local(
                part,
                parameter.device_mesh,
                parameter.placements,
                run_check=False,
                shape=parameter.shape,
                stride=parameter.stride(),
            )

        return mapped(open_state(directory, name), take)

    def _owns(self, tensor: DTensor) -> bool:
        """Whether this process writes its part: of several replicas the first does."""
        mesh = tensor.device_mesh
        assert mesh.size() == self._ranks, "what is sharded at all lies on the whole mesh"
        coordinate = mesh.get_coordinate()
        assert coordinate is not None
        return all(
            place == 0 or not placement.is_replicate()
            for place, placement in zip(coordinate, tensor.placements, strict=True)
        )
