"""What the processes of a mesh do together: batches, sums, norms, and the parts of parameters.

Every function that communicates must be called by every process of the mesh, in the same order.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributed._composable.replicate import DDP
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from clew.sharding.rules import DATA, FSDP, MESH_AXES

ArrayT = TypeVar("ArrayT", bound=np.generic)


def build_mesh(sizes: Mapping[str, int], device_type: str) -> DeviceMesh:
    """Return the mesh of all processes; the innermost axis, `tensor`, is that of neighbouring ranks.

    The process group must be there: ``gloo`` for ``cpu``, ``nccl`` for ``cuda``.

    Args:
        sizes: Devices along each axis; see :meth:`clew.sharding.MeshConfig.sizes`.
        device_type: ``cpu`` or ``cuda``.
    """
    return init_device_mesh(device_type, tuple(sizes[axis] for axis in MESH_AXES), mesh_dim_names=MESH_AXES)


def data_rank(mesh: DeviceMesh) -> tuple[int, int]:
    """Return which slice of a batch this process computes, and how many slices there are.

    The processes along `tensor` share a slice.
    """
    data, fsdp = mesh[DATA], mesh[FSDP]
    return data.get_local_rank() * fsdp.size() + fsdp.get_local_rank(), data.size() * fsdp.size()


def shard_batch(ids: NDArray[ArrayT], rank: int, ranks: int) -> NDArray[ArrayT]:
    """Return the slice of a global batch that one data-parallel rank computes.

    The slices of all ranks, joined in their order, are the batch. When it does not divide, the first ranks take one
    sample more.

    Args:
        ids: The batch, [B] or [B, ...]; the same on every rank.
        rank: Which slice; see :func:`data_rank`.
        ranks: How many slices.

    Raises:
        ValueError: If there is no such rank.
    """
    if not 0 <= rank < ranks:
        raise ValueError(f"rank {rank} of {ranks}")
    each, more = divmod(len(ids), ranks)
    start = rank * each + min(rank, more)
    return ids[start : start + each + (rank < more)]


def global_sum(tensor: Tensor, mesh: DeviceMesh | None) -> Tensor:
    """Return the sum of a tensor over the slices of the batch: of losses, or numbers of targets.

    Args:
        tensor: Any shape, on the mesh's device; not changed. The processes along `tensor` have the same one.
        mesh: None for one process alone, whose tensor is returned.
    """
    if mesh is None:
        return tensor
    total = tensor.clone()
    for axis in (DATA, FSDP):
        if mesh[axis].size() > 1:
            dist.all_reduce(total, group=mesh[axis].get_group())
    return total


@torch.no_grad()
def gather_rows(own: Tensor, count: int, mesh: DeviceMesh) -> Tensor:
    """Return on every process the rows [B, ...] of a whole batch, in its order: what :func:`shard_batch` took apart.

    Args:
        own: The rows of this process's slice, filled up at the end to as many as the largest slice has.
        count: B, without what slices are filled up with.
        mesh: The processes along `tensor` have the same rows.
    """
    slices = own.unsqueeze(0).contiguous()
    for axis in (FSDP, DATA):
        if mesh[axis].size() > 1:
            parts = [torch.empty_like(slices) for _ in range(mesh[axis].size())]
            dist.all_gather(parts, slices, group=mesh[axis].get_group())
            slices = torch.cat(parts)
    each, more = divmod(count, len(slices))
    return torch.cat([rows[: each + (number < more)] for number, rows in enumerate(slices)])


@torch.no_grad()
def full_tensor(name: str, param: Tensor) -> Tensor:
    """Return the whole of a parameter, gradient or optimizer tensor on every process; communicates if it is sharded.

    Args:
        name: Its name, for the error.
        param: A plain tensor is returned as it is.

    Raises:
        ValueError: If it is a sum that is not finished, as a gradient in the midst of a backward pass.
    """
    if not isinstance(param, DTensor):
        return param.detach()
    if any(placement.is_partial() for placement in param.placements):
        raise ValueError(f"{name} is a sum over processes that is not finished")
    return param.full_tensor()


def local_slices(param: Tensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return where this process's part of a parameter lies in the whole: ``(offsets, sizes)``, one of each a dimension.

    A plain tensor is the whole of it. A part may be empty: then a size is 0.
    """
    if not isinstance(param, DTensor):
        return (0,) * param.dim(), tuple(param.shape)
    sizes, offsets = compute_local_shape_and_global_offset(param.shape, param.device_mesh, param.placements)
    return tuple(offsets), tuple(sizes)


def local_part(param: Tensor) -> Tensor:
    """Return this process's part of a parameter: the memory itself, not a copy. A plain tensor is its own part."""
    return param.to_local() if isinstance(param, DTensor) else param


def sync_gradients(model: nn.Module, *, last: bool) -> None:
    """Say before a pass, forward and backward, whether it is the last of the step; others leave replicas' sums out.

    What is sharded at rest is scattered in every pass, since whole gradients would not fit.

    Args:
        model: What :func:`clew.sharding.parallel.parallelize` returned.
        last: Whether the optimizer makes its step after this pass. Replicas take it up in the forward pass.
    """
    if isinstance(model, FSDPModule):
        model.set_requires_all_reduce(last)
    elif isinstance(model, DDP):
        model.set_requires_gradient_sync(last)


@torch.no_grad()
def gradient_norm(parameters: Iterable[Tensor]) -> Tensor:
    """Return the L2 norm, 0-d, of the gradients of parameters as if none was sharded; waits for no device.

    Each process adds the squares of its own parts, and the sums are added over the mesh axes that split them.
    """
    squares: dict[tuple[DeviceMesh, tuple[int, ...]] | None, list[Tensor]] = defaultdict(list)
    for parameter in parameters:
        if parameter.grad is not None:
            part = local_part(parameter.grad)
            squares[_split_over(parameter.grad)].append(torch.linalg.vector_norm(part, dtype=torch.float32))
    if not squares:
        return torch.zeros(())
    totals = []
    for where, norms in squares.items():
        total = torch.stack(norms).square().sum()
        for axis in where[1] if where is not None else ():
            dist.all_reduce(total, group=where[0].get_group(axis))  # type: ignore[index]
        totals.append(total)
    return torch.stack(totals).sum().sqrt()


@torch.no_grad()
def clip_gradients(parameters: Iterable[Tensor], max_norm: float) -> Tensor:
    """Scale gradients down to a norm, as ``torch.nn.utils.clip_grad_norm_`` would on one process.

    Args:
        parameters: Sharded ones and whole ones may be mixed.
        max_norm: ``inf`` changes nothing.

    Returns:
        The norm before, 0-d; the same on every process.
    """
    taken = [parameter for parameter in parameters if parameter.grad is not None]
    norm = gradient_norm(taken)
    factor = torch.clamp(max_norm / (norm + 1e-6), max=1.0)
    parts = [local_part(parameter.grad) for parameter in taken if parameter.grad is not None]
    if parts:
        torch._foreach_mul_(parts, factor)
    return norm


def _split_over(tensor: Tensor) -> tuple[DeviceMesh, tuple[int, ...]] | None:
    """The mesh and the numbers of its axes that split a tensor; None for one that every process has whole."""
    if not isinstance(tensor, DTensor):
        return None
    # Not `is_shard()`: a dimension that two mesh axes split has a kind of its own.
    axes = tuple(index for index, placement in enumerate(tensor.placements) if not placement.is_replicate())
    return (tensor.device_mesh, axes) if axes else None
