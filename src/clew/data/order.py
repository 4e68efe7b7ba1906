"""Sample order as a pure function of (seed, epoch, position): no list is shuffled, and no state is kept.

A Feistel network permutes the integers of 2k bits: each round adds a keyed hash of one half to the other, which can be
undone whatever the hash is (Luby & Rackoff 1988). A permutation of range(n) follows by cycle walking (Black & Rogaway
2002): apply it again until the value is below n. With 2k bits just enough, that takes fewer than 4 turns on average.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]
_Words = npt.NDArray[np.uint64]

_ROUNDS = 8
_WORD = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_STEPS = ((np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)), (np.uint64(27), np.uint64(0x94D049BB133111EB)))


def permute(positions: Ids, size: int, *, seed: int, epoch: int) -> Ids:
    """Return the sample at each position of an epoch.

    Args:
        positions: Any shape, int64, each in [0, size).
        size: Number of samples.
        seed: Not negative; with `epoch` it selects the permutation.
        epoch: Not negative.

    Returns:
        Sample ids in [0, size), in the shape of `positions`. Over all positions each id occurs exactly once.
    """
    if positions.size and not (int(positions.min()) >= 0 and int(positions.max()) < size):
        raise ValueError(f"positions must lie in [0, {size})")
    half = _half_bits(size)
    keys = round_keys(seed, epoch)
    ids = _feistel(positions.astype(np.uint64).reshape(-1), half, keys)
    outside = np.flatnonzero(ids >= size)
    while outside.size:
        walked = _feistel(ids[outside], half, keys)
        ids[outside] = walked
        outside = outside[walked >= size]
    return ids.astype(np.int64).reshape(positions.shape)


def round_keys(seed: int, epoch: int) -> list[int]:
    """Return one 64-bit key a round; they differ for every (seed, epoch)."""
    state = mix(mix(seed) ^ (epoch & _WORD))
    return [mix(state + number * _GOLDEN) for number in range(1, _ROUNDS + 1)]


def mix(value: int) -> int:
    """Scramble 64 bits: the finaliser of SplitMix64 (Steele, Lea & Flood 2014), after one step of its counter."""
    value = (value + _GOLDEN) & _WORD
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _WORD
    return value ^ (value >> 31)


def _half_bits(size: int) -> int:
    """Return the smallest k >= 1 for which 2k bits count to `size`."""
    return max(1, ((size - 1).bit_length() + 1) // 2)


def _feistel(values: _Words, half: int, keys: list[int]) -> _Words:
    shift, mask = np.uint64(half), np.uint64((1 << half) - 1)
    left, right = values >> shift, values & mask
    mixed, shifted = np.empty_like(left), np.empty_like(left)
    for key in keys:
        np.bitwise_xor(right, np.uint64(key), out=mixed)
        _mix_words(mixed, shifted)
        mixed &= mask
        left ^= mixed
        left, right = right, left
    return (left << shift) | right


def _mix_words(words: _Words, spare: _Words) -> None:
    """:func:`mix` for an array, in place; uint64 arrays wrap around, as it needs. ``spare`` is written over."""
    words += np.uint64(_GOLDEN)
    for shift, factor in _STEPS:
        np.right_shift(words, shift, out=spare)
        words ^= spare
        words *= factor
    np.right_shift(words, np.uint64(31), out=spare)
    words ^= spare
