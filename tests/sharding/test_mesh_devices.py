"""What the ranks of a mesh take of a batch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from clew.sharding.devices import clip_gradients, full_tensor, global_sum, local_slices, shard_batch


@given(samples=st.integers(0, 40), ranks=st.integers(1, 9))
def test_the_slices_of_all_ranks_are_the_batch_in_its_order(samples, ranks):
    ids = np.arange(samples, dtype=np.int64) * 7
    slices = [shard_batch(ids, rank, ranks) for rank in range(ranks)]
    assert np.concatenate(slices).tolist() == ids.tolist()
    assert max(map(len, slices)) - min(map(len, slices)) <= 1


def test_a_rank_that_is_not_there_takes_nothing():
    with pytest.raises(ValueError, match="rank 2 of 2"):
        shard_batch(np.arange(4), 2, 2)


def test_a_process_alone_has_the_whole_of_everything():
    weight = torch.ones(2, 3)
    assert global_sum(weight, None) is weight
    assert full_tensor("weight", weight).equal(weight)
    assert local_slices(weight) == ((0, 0), (2, 3))


@pytest.mark.parametrize("max_norm", [0.01, 1e3, math.inf])
def test_gradients_are_clipped_as_pytorch_does_it(max_norm):
    torch.manual_seed(0)
    ours, theirs = nn.Linear(5, 4), nn.Linear(5, 4)
    for own, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        own.grad = torch.randn_like(own)
        other.grad = own.grad.clone()
    norm = clip_gradients(ours.parameters(), max_norm)
    torch.testing.assert_close(norm, nn.utils.clip_grad_norm_(theirs.parameters(), max_norm))
    for own, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(own.grad, other.grad)
