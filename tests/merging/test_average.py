from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from clew.errors import UserError
from clew.merging.average import average, put, tensors_of

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=7), st.sampled_from(DTYPES), st.integers(0, 99))
def test_equal_weights_give_themselves_bitwise_whatever_their_shares(weights, dtype, seed):
    generator = torch.Generator().manual_seed(seed)
    one = torch.randn(50, generator=generator).mul(10.0 ** float(seed % 5)).to(dtype)
    one[0], one[1] = -0.0, torch.finfo(dtype).tiny
    merged = average([{"w": one}] * len(weights), weights)["w"]
    assert merged.dtype == dtype
    assert bits(merged) == bits(one)


def test_a_mean_is_weighted_and_only_ratios_count():
    models = [{"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([4.0, -1.0])}]
    for weights in ([2.0, 1.0], [200.0, 100.0]):
        assert average(models, weights)["w"].tolist() == pytest.approx([2.0, 1.0])


def test_halves_are_summed_in_more_than_halves():
    # In bfloat16 the sum of these would lose every one after the first.
    models = [{"w": torch.tensor([256.0], dtype=torch.bfloat16)}] + [
        {"w": torch.tensor([0.5], dtype=torch.bfloat16)}
    ] * 255
    assert average(models, [1.0] * 256)["w"].item() == pytest.approx((256 + 127.5) / 256, rel=2**-8)


def test_the_order_of_two_models_does_not_matter():
    one, other = ({"w": torch.randn(1000)} for _ in range(2))
    assert torch.equal(average([one, other], [1, 1])["w"], average([other, one], [1, 1])["w"])


def test_counters_and_masks_are_not_averaged():
    models = [{"n": torch.tensor(3), "m": torch.tensor([True])}, {"n": torch.tensor(6), "m": torch.tensor([False])}]
    merged = average(models, [1, 1])
    assert (merged["n"].item(), merged["m"].item(), merged["n"].dtype) == (3, True, torch.int64)


def test_models_may_come_one_at_a_time_and_be_gone():
    def loaded():
        tensor = torch.ones(3)
        for value in (1.0, 2.0, 3.0):
            yield {"w": tensor.fill_(value)}

    assert average(loaded(), [1, 1, 1])["w"].tolist() == [2.0] * 3


def test_what_is_not_finite_is_named():
    with pytest.raises(UserError, match=r"the mean of layers.0.w is not finite\n  one of the models has diverged"):
        average([{"layers.0.w": torch.tensor([float("inf")])}] * 2, [1, 1])


def test_other_names_and_other_numbers_are_refused():
    with pytest.raises(ValueError, match=r"the tensors have other names: a, b"):
        average([{"a": torch.ones(1)}, {"b": torch.ones(1)}], [1, 1])
    with pytest.raises(ValueError, match="argument 2 is longer"):
        average([{"a": torch.ones(1)}], [1, 1])
    with pytest.raises(ValueError, match="nothing to average"):
        average([], [])


class Tied(nn.Module):
    """Two names of one matrix, a counter, and a buffer that is not saved."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.embed = nn.Embedding(3, 2)
        self.head = nn.Linear(2, 3, bias=False)
        self.head.weight = self.embed.weight
        nn.init.constant_(self.embed.weight, value)
        self.register_buffer("seen", torch.tensor(int(value)))
        self.register_buffer("angles", torch.full((2,), value), persistent=False)


def test_tied_weights_stay_tied_and_what_is_not_saved_stays_itself():
    models = [Tied(1.0), Tied(4.0)]
    put(models[0], average(map(tensors_of, models), [1, 1]))
    merged = models[0]
    assert merged.head.weight is merged.embed.weight
    assert merged.head.weight.unique().tolist() == [2.5]
    assert (merged.seen.item(), merged.angles.tolist()) == (1, [1.0, 1.0])
