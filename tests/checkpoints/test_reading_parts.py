"""Whatever parts a tensor was saved in, any other part is read from them, into memory of any layout."""

from __future__ import annotations

import tempfile
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clew.checkpoints.shards import Place, Stored, open_state, save_shards
from clew.errors import DataError


def saved(folder: Path, whole: torch.Tensor, rows: list[int], columns: list[int], *, without: int = -1) -> Stored:
    """Save a matrix as a grid of ranks does; with cuts at these rows and columns."""
    grid = [
        (slice(*down), slice(*along))
        for down in pairwise([0, *rows, whole.shape[0]])
        for along in pairwise([0, *columns, whole.shape[1]])
    ]
    for rank, (down, along) in enumerate(grid):
        sizes = (down.stop - down.start, along.stop - along.start)
        place = Place(tuple(whole.shape), (down.start, along.start), sizes, owned=rank != without)
        save_shards(folder, "s", {"w": whole[down, along]}, {".w": place}, rank=rank, ranks=len(grid))
    return open_state(folder, "s")["w"]


@given(data=st.data())
@settings(max_examples=60)
def test_any_part_is_read_from_any_parts(data):
    shape = data.draw(st.tuples(st.integers(1, 6), st.integers(1, 6)))
    whole = torch.arange(shape[0] * shape[1], dtype=torch.float32).reshape(shape)
    rows, columns = (sorted(data.draw(st.sets(st.integers(1, size), max_size=2)) - {size}) for size in shape)
    (top, bottom), (left, right) = (sorted(data.draw(st.tuples(*[st.integers(0, size)] * 2))) for size in shape)
    expected = whole[top:bottom, left:right]
    with tempfile.TemporaryDirectory() as folder:
        stored = saved(Path(folder), whole, rows, columns)
        assert stored.read().equal(whole)
        assert stored.part((top, left), tuple(expected.shape)).equal(expected)
        target = torch.full(tuple(expected.shape)[::-1], -1.0, dtype=torch.float64).T
        stored.fill(target, (top, left))
        assert target.equal(expected.double())


def test_a_part_that_nobody_has_saved_is_missed(tmp_path):
    stored = saved(tmp_path, torch.zeros(4, 4), [2], [], without=1)
    stored.fill(torch.empty(2, 4), (0, 0))
    for read in (stored.read, lambda: stored.fill(torch.empty(2, 4), (1, 0))):
        with pytest.raises(DataError, match=r"a part of 0\.w is missing in the checkpoint"):
            read()
