"""A loader hands out what the feed says, whatever it has read ahead."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clew.data.feed import Feed
from clew.data.loader import Loader
from clew.data.order import Ids
from clew.inspection.samples import Part, Selection
from clew.sharding.devices import shard_batch

SIZE = 50
CHOSEN = Selection((Part(np.array([3, 1, 4, 15, 9], dtype=np.int64)),))
DEADLINE = 30.0


def doubled(ids: Ids) -> list[int]:
    return (2 * ids).tolist()


@settings(max_examples=40, deadline=None)
@given(
    workers=st.sampled_from([0, 1, 2]),
    mixed=st.booleans(),
    moves=st.lists(st.sampled_from(["take", "select", "all", "larger", "smaller", "back"]), max_size=20),
)
def test_batches_are_those_of_the_feed_with_any_number_of_workers(workers, mixed, moves):
    shares = ((20, 0.3), (30, 0.7)) if mixed else ()
    fed, plain = (Feed(SIZE, 3, 6, shares=shares) for _ in range(2))
    loader, state = Loader(doubled, fed, workers=workers), plain.state()
    for move in moves:
        for feed in (fed, plain):
            if move in ("select", "all"):
                feed.select(CHOSEN if move == "select" else None)
            elif move in ("larger", "smaller"):
                feed.batch_size = 11 if move == "larger" else 2
            elif move == "back":
                feed.load(state)
        assert loader.take() == doubled(plain.take())
        assert fed.samples_seen == plain.samples_seen
    loader.close()


@pytest.mark.parametrize("ranks", [1, 2, 4, 8])
@pytest.mark.parametrize("workers", [0, 2])
def test_the_loaders_of_all_ranks_read_a_batch_together(ranks, workers):
    alone = Feed(SIZE, 3, 9)
    loaders = [
        Loader(lambda ids, rank=rank: shard_batch(ids, rank, ranks), Feed(SIZE, 3, 9), workers=workers)
        for rank in range(ranks)
    ]
    for _ in range(12):
        assert np.array_equal(np.concatenate([loader.take() for loader in loaders]), alone.take())
    for loader in loaders:
        loader.close()


def test_what_is_read_ahead_is_bounded():
    read: list[int] = []
    loader = Loader(lambda ids: read.append(len(ids)), Feed(10_000, 0, 4), workers=2)
    for taken in range(1, 20):
        loader.take()
        assert loader.num_ahead == 4
        assert len(read) <= taken + 4
    loader.close()
    assert loader.num_ahead == 0


def test_batches_are_read_while_the_one_before_is_used():
    """The second batch is being read before anybody has asked for it."""
    asked, go_on = threading.Semaphore(0), threading.Event()

    def read(ids: Ids) -> Ids:
        asked.release()
        if not go_on.wait(DEADLINE):
            raise TimeoutError
        return ids

    loader = Loader(read, Feed(SIZE, 0, 2), workers=2)
    first = threading.Thread(target=loader.take)
    first.start()
    assert asked.acquire(timeout=DEADLINE) and asked.acquire(timeout=DEADLINE)
    go_on.set()
    first.join(DEADLINE)
    assert not first.is_alive()
    loader.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_of_the_reading_is_raised_when_its_batch_is_due(workers):
    feed, plain = Feed(SIZE, 0, 5), Feed(SIZE, 0, 5)
    bad = int(plain.peek(15)[12])

    def read(ids: Ids) -> list[int]:
        if bad in ids:
            raise OSError("the disk is gone")
        return ids.tolist()

    loader = Loader(read, feed, workers=workers)
    for _ in range(2):
        assert loader.take() == plain.take().tolist()
    with pytest.raises(OSError, match="the disk is gone"):
        loader.take()
    plain.take()
    assert loader.take() == plain.take().tolist()
    loader.close()


def test_an_error_of_a_batch_that_is_not_wanted_any_more_is_forgotten():
    feed = Feed(SIZE, 0, 5)
    bad = int(feed.peek(10)[7])

    def read(ids: Ids) -> list[int]:
        if bad in ids:
            raise OSError("the disk is gone")
        return ids.tolist()

    loader = Loader(read, feed, workers=1)
    loader.take()
    feed.select(Selection((Part(np.array([bad ^ 1], dtype=np.int64)),)))
    assert loader.take() == [bad ^ 1] * 5
    loader.close()
