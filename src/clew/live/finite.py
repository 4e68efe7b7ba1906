"""Whether weights are still numbers: those that are not are never worth coming back to."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def are_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether all numbers of some floating point tensors are finite; True for none.

    It reads each tensor once, where it lies, keeps nothing of its size, and waits for the device once.

    Args:
        tensors: Of any shapes and floating point dtypes, on one device.
    """
    # Least and greatest carry on what is not a number, and unlike a sum they cannot overflow.
    ends = [torch.stack(one.detach().aminmax()).isfinite() for one in tensors if one.numel()]
    return bool(torch.stack(ends).all()) if ends else True
