from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clew.data.order import permute, round_keys
from clew.data.stream import SampleStream

seeds = st.integers(0, 2**70)
epochs = st.integers(0, 10_000)


def order(size: int, seed: int = 0, epoch: int = 0) -> np.ndarray:
    return permute(np.arange(size), size, seed=seed, epoch=epoch)


@given(size=st.integers(1, 3000), seed=seeds, epoch=epochs)
def test_every_sample_comes_exactly_once_an_epoch(size, seed, epoch):
    assert np.array_equal(np.sort(order(size, seed, epoch)), np.arange(size))


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 16, 17, 1 << 16, (1 << 16) + 1])
def test_sizes_around_powers_of_two_are_permuted(size):
    assert np.array_equal(np.sort(order(size)), np.arange(size))


def test_a_data_set_of_any_size_needs_no_memory_of_its_size():
    size = 10**15
    ids = permute(np.array([0, 1, size - 1]), size, seed=0, epoch=0)
    assert len(set(ids.tolist())) == 3
    assert ((ids >= 0) & (ids < size)).all()


@given(size=st.integers(1, 500), data=st.data())
def test_a_position_has_the_same_sample_whoever_asks_with_it(size, data):
    positions = np.array(data.draw(st.lists(st.integers(0, size - 1), max_size=20)), dtype=np.int64)
    assert np.array_equal(permute(positions, size, seed=7, epoch=3), order(size, 7, 3)[positions])


def test_the_order_is_pinned():
    """A change here would reshuffle every run that is resumed."""
    assert order(10, seed=1, epoch=2).tolist() == [0, 7, 8, 9, 2, 5, 6, 4, 1, 3]


def test_another_seed_or_epoch_is_another_order():
    orders = {tuple(order(100, seed, epoch)) for seed in range(10) for epoch in range(10)}
    assert len(orders) == 100
    assert len({tuple(round_keys(seed, epoch)) for seed in range(50) for epoch in range(50)}) == 2500


def test_orders_are_mixed_like_random_ones():
    size, orders = 1000, np.stack([order(1000, seed) for seed in range(200)])
    correlations = [abs(np.corrcoef(np.arange(size), row)[0, 1]) for row in orders]
    assert np.mean(correlations) < 0.05
    # Each sample's place is uniform: its mean over 200 orders has a standard error of 1000 / sqrt(12 * 200).
    assert np.abs(orders.mean(axis=0) - (size - 1) / 2).max() < 5 * size / np.sqrt(12 * 200)
    # Neighbours become strangers: about one in 500 stays beside its neighbour in a random order.
    assert (np.abs(np.diff(orders, axis=1)) == 1).mean() < 0.004


def test_each_place_gets_each_sample_of_a_small_set_equally_often():
    firsts = np.array([order(5, seed)[0] for seed in range(2000)])
    counts = np.bincount(firsts, minlength=5)
    assert counts.min() > 320
    assert counts.max() < 480


@pytest.mark.parametrize("size", [64, 100, 257])
def test_each_position_gets_each_sample_as_often_as_by_chance(size):
    """Chi-square over all cells of (position, sample), whose mean is (n - 1)^2: within five deviations of it."""
    rounds = 400
    counts = np.zeros((size, size))
    for epoch in range(rounds):
        counts[np.arange(size), order(size, seed=11, epoch=epoch)] += 1
    statistic = ((counts - rounds / size) ** 2 / (rounds / size)).sum()
    freedom = (size - 1) ** 2
    assert abs(statistic - freedom) < 5 * np.sqrt(2 * freedom)


@given(seed=seeds, epoch=epochs)
@settings(max_examples=20, deadline=None)
def test_two_epochs_have_nothing_in_common(seed, epoch):
    """As many fixed points as chance gives (one), no shift or mirror between them, and no correlation."""
    size = 1000
    one, two = order(size, seed, epoch), order(size, seed, epoch + 1)
    assert (one == two).sum() <= 10
    step = np.empty(size, dtype=np.int64)
    step[one] = two
    shifts = np.bincount((step - np.arange(size)) % size, minlength=size)
    mirrors = np.bincount((step + np.arange(size)) % size, minlength=size)
    assert max(shifts.max(), mirrors.max()) <= 12
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.2


def test_neighbours_go_everywhere():
    """The distance of two neighbouring positions is that of two samples drawn at random: n / 3 on the average."""
    size = 4096
    distances = np.abs(np.diff([order(size, seed) for seed in range(50)], axis=1))
    assert abs(distances.mean() / (size / 3) - 1) < 0.02


def test_one_bit_of_a_position_changes_half_the_bits_of_its_sample():
    """The avalanche criterion, for each bit of the position; ten standard errors are about 0.04."""
    bits = 16
    positions = np.random.default_rng(0).integers(0, 1 << bits, 4000)
    straight = permute(positions, 1 << bits, seed=5, epoch=0)
    for bit in range(bits):
        flipped = straight ^ permute(positions ^ (1 << bit), 1 << bits, seed=5, epoch=0)
        shares = ((flipped[:, None] >> np.arange(bits)) & 1).mean(axis=0)
        assert abs(shares - 0.5).max() < 0.08


@pytest.mark.parametrize("other", [{"seed": 6, "epoch": 0}, {"seed": 5, "epoch": 1}])
def test_one_bit_of_the_seed_or_the_epoch_changes_half_the_bits_of_every_sample(other):
    bits, positions = 16, np.arange(1 << 16)
    changed = permute(positions, 1 << bits, seed=5, epoch=0) ^ permute(positions, 1 << bits, **other)
    shares = ((changed[:, None] >> np.arange(bits)) & 1).mean(axis=0)
    assert abs(shares - 0.5).max() < 0.02


@pytest.mark.parametrize("position", [-1, 10])
def test_a_position_outside_the_epoch_is_refused(position):
    with pytest.raises(ValueError, match=r"positions must lie in \[0, 10\)"):
        permute(np.array([position]), 10, seed=0, epoch=0)


@given(size=st.integers(1, 50), seed=st.integers(0, 9), cuts=st.lists(st.integers(1, 40), min_size=1, max_size=8))
def test_the_stream_is_the_same_for_every_batch_split(size, seed, cuts):
    stream = SampleStream(size, seed)
    starts = np.cumsum([0, *cuts[:-1]])
    pieces = [stream.batch(int(start), cut) for start, cut in zip(starts, cuts, strict=True)]
    assert np.array_equal(np.concatenate(pieces), stream.batch(0, sum(cuts)))


@given(size=st.integers(1, 50), seed=st.integers(0, 9))
def test_the_stream_goes_through_epoch_after_epoch(size, seed):
    ids = SampleStream(size, seed).batch(0, 3 * size).reshape(3, size)
    for epoch in range(3):
        assert np.array_equal(ids[epoch], order(size, seed, epoch))


def test_the_stream_knows_its_epoch():
    stream = SampleStream(10, 0)
    assert [stream.epoch(seen) for seen in (0, 9, 10, 25)] == [0, 0, 1, 2]


def test_a_stream_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one sample"):
        SampleStream(0, 0)
