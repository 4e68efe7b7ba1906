"""The processes of a run as PyTorch's process group, and the mesh of all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh

from clew.session.ranks import Ranks
from clew.sharding.devices import build_mesh

BACKENDS = {"cpu": "gloo", "cuda": "cpu:gloo,cuda:nccl"}
"""What carries the tensors of a device; those of the host always go by gloo."""


@contextmanager
def on_mesh(ranks: Ranks, device: torch.device, sizes: Mapping[str, int]) -> Iterator[DeviceMesh]:
    """Be one of the processes of a mesh.

    Args:
        ranks: All of them, and the store where they meet.
        device: This process's.
        sizes: Of the mesh; see :meth:`clew.sharding.MeshConfig.sizes`.
    """
    dist.init_process_group(
        BACKENDS[device.type],
        store=dist.PrefixStore("torch", ranks.clone()),  # type: ignore[attr-defined]
        rank=ranks.rank,
        world_size=ranks.size,
        device_id=device if device.type == "cuda" else None,
    )
    try:
        yield build_mesh(sizes, device.type)
    finally:
        dist.destroy_process_group()
