from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.data.packing import Batch, Windows
from clew.data.stored import Interleaved, Joined, StoredWindows

lengths = st.lists(st.integers(0, 30), min_size=1, max_size=6).filter(lambda sizes: sum(sizes) >= 2)


def row(num_tokens: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1000, num_tokens).astype(np.uint16)


def cut(tokens: np.ndarray, sizes: list[int]) -> list[np.ndarray]:
    return np.split(tokens, np.cumsum(sizes[:-1]))


def same(one: Batch, other: Batch) -> bool:
    return np.array_equal(one.inputs, other.inputs) and np.array_equal(one.targets, other.targets)


@given(sizes=lengths, seq_len=st.integers(2, 12), seed=st.integers(0, 99), limit=st.none() | st.integers(2, 80))
def test_windows_over_pieces_are_those_over_the_whole_row(sizes, seq_len, seed, limit):
    tokens = row(sum(sizes))
    stored = StoredWindows(cut(tokens, sizes), seq_len, "x", max_tokens=limit)
    plain = Windows(tokens[:limit], seq_len)
    assert len(stored) == len(plain)
    ids = np.random.default_rng(seed).integers(0, len(plain), 3 * len(plain))
    batch = stored.batch(ids)
    assert same(batch, plain.batch(ids))
    assert batch.inputs.flags.c_contiguous and batch.targets.flags.c_contiguous
    assert not np.shares_memory(batch.inputs, batch.targets)
    for one in ids[:3, None]:
        assert same(stored.batch(one), plain.batch(one))


def test_what_is_done_to_a_batch_does_not_reach_the_tokens():
    tokens = row(50)
    stored, kept = StoredWindows([tokens], 8, "x"), tokens.copy()
    stored.batch(np.arange(3)).inputs[:] = 0
    assert np.array_equal(tokens, kept)


def test_the_digest_tells_rows_lengths_and_limits_apart():
    pieces = [row(40)]
    made = [("x", 8, None), ("y", 8, None), ("x", 9, None), ("x", 8, 30)]
    digests = {StoredWindows(pieces, length, name, max_tokens=limit).digest for name, length, limit in made}
    assert len(digests) == 4
    assert StoredWindows(cut(pieces[0], [10, 30]), 8, "x").digest in digests


def test_fewer_than_two_tokens_make_no_window():
    with pytest.raises(ValueError, match="at least two tokens"):
        StoredWindows([row(1), row(0)], 4, "x")


def parts() -> list[Windows]:
    return [Windows(row(size, seed), 8) for seed, size in enumerate((100, 20, 300))]


@given(ids=st.lists(st.integers(0, 53), min_size=1, max_size=20))
def test_a_joined_set_has_the_samples_of_its_parts_one_after_the_other(ids):
    whole, alone = Joined(parts()), parts()
    rows = [part.batch(np.array([number])) for part in alone for number in range(len(part))]
    assert len(whole) == len(rows) == 54
    batch = whole.batch(np.array(ids))
    assert np.array_equal(batch.inputs, np.concatenate([rows[number].inputs for number in ids]))
    assert np.array_equal(batch.targets, np.concatenate([rows[number].targets for number in ids]))


def test_an_interleaved_set_has_each_sample_once_and_its_parts_evenly():
    mixed, joined = Interleaved(parts()), Joined(parts())
    whole = mixed.batch(np.arange(len(mixed)))
    order = lambda batch: sorted(map(tuple, batch.inputs.tolist()))  # noqa: E731
    assert order(whole) == order(joined.batch(np.arange(len(joined))))
    sizes = np.array([len(part) for part in parts()])
    owners = np.repeat(np.arange(3), sizes)[mixed._order]
    for count in range(1, len(mixed)):
        shares = np.bincount(owners[:count], minlength=3)
        assert np.abs(shares - count * sizes / len(mixed)).max() <= 1


def test_digests_know_parts_and_their_order():
    one, two, three = parts()
    digests = {Joined([one, two, three]).digest, Joined([two, one, three]).digest, Joined([one, two]).digest}
    assert len(digests | {Interleaved([one, two]).digest}) == 4
