"""The k-th largest of many numbers, without a sorted copy of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

_DIGIT = 16
_MASK = (1 << _DIGIT) - 1


def kth_largest(blocks: Callable[[], Iterable[Tensor]], rank: int) -> float:
    """Return the rank-th largest of numbers that are not negative, exactly.

    The bits of such a float64, read as an integer, are in the order of the numbers. So the answer is found 16 bits at a
    time from the top, by counting (a radix selection): four passes over the blocks, and 65536 counters.

    Args:
        blocks: Gives the numbers anew at each call, flat and in float64.
        rank: From 1, the largest, to their number.
    """
    found = 0
    for shift in range(64 - _DIGIT, -1, -_DIGIT):
        counts = torch.zeros(1 << _DIGIT, dtype=torch.int64)
        for block in blocks():
            bits = block.view(torch.int64)
            if shift < 64 - _DIGIT:
                bits = bits[(bits >> (shift + _DIGIT)) == found]
            counts += torch.bincount((bits >> shift) & _MASK, minlength=1 << _DIGIT)
        above = counts.flip(0).cumsum(0)
        digit = _MASK - int(torch.searchsorted(above, rank))
        rank -= int(above[_MASK - digit] - counts[digit])
        found = (found << _DIGIT) | digit
    return float(torch.tensor(found, dtype=torch.int64).view(torch.float64))
