"""Weights that are no numbers are found in any dtype, and large ones are not taken for such."""

import pytest
import torch

from clew.live.finite import are_finite


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("odd", [torch.nan, torch.inf, -torch.inf])
def test_one_number_that_is_none_is_found(dtype, odd):
    good, bad = torch.zeros(3, 4, dtype=dtype), torch.ones(2, 5, dtype=dtype)
    assert are_finite([good, bad])
    bad[1, 2] = odd
    assert not are_finite([good, bad])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_largest_numbers_are_numbers(dtype):
    assert are_finite([torch.full((1000,), torch.finfo(dtype).max, dtype=dtype), torch.zeros((), dtype=dtype)])


def test_nothing_is_finite():
    assert are_finite([])
    assert are_finite([torch.empty(0), torch.nn.Parameter(torch.ones(1))])
