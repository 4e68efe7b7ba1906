"""Why sequences are not split in attention: PyTorch has no attention on the CPU that could do with a part of them."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor.experimental import context_parallel
from torch.nn import functional as F


@pytest.fixture
def alone():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


def test_ring_attention_does_not_know_the_attention_of_the_cpu(alone):
    """Once this fails, ``seq`` can have a mesh axis of its own."""
    query, key, value = torch.randn(3, 2, 4, 16, 8)
    with (
        pytest.raises(NotImplementedError, match=r"flash_attention_for_cpu.default does not have a sharding strategy"),
        context_parallel(alone, buffers=[query, key, value], buffer_seq_dims=[2, 2, 2]),
    ):
        F.scaled_dot_product_attention(query, key, value, is_causal=True)
