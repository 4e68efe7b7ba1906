from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clew.data.feed import Feed
from clew.data.stream import SampleStream
from clew.inspection.samples import Part, Selection

SIZE = 40
seeds = st.integers(0, 2**40)


@st.composite
def selections(draw: st.DrawFn, parts: int = 3) -> Selection:
    ids = st.lists(st.integers(0, SIZE - 1), min_size=6, max_size=SIZE, unique=True)
    shares = st.floats(0.01, 100)
    drawn = draw(st.lists(st.tuples(ids, shares), min_size=1, max_size=parts))
    made = tuple(Part(np.array(one, dtype=np.int64), share) for one, share in drawn)
    return Selection(made, {"where": "length > 3"}, draw(st.booleans()))


def feed(seed: int = 3, selection: Selection | None = None, *, size: int = SIZE, batch_size: int = 4, **more) -> Feed:
    made = Feed(size, seed, batch_size, **more)
    if selection is not None:
        made.select(selection)
    return made


def part(*ids: int, share: float = 1.0) -> Part:
    return Part(np.array(ids, dtype=np.int64), share)


@given(size=st.integers(1, 500), seed=seeds, start=st.integers(0, 2000), count=st.integers(1, 60))
def test_without_a_selection_it_is_the_stream_that_it_always_was(size, seed, start, count):
    made = feed(seed, size=size)
    made.samples_seen = start
    assert np.array_equal(made.take(count), SampleStream(size, seed).batch(start, count))


@given(seed=seeds, chosen=st.none() | selections(), cuts=st.lists(st.integers(1, 30), min_size=1, max_size=6))
def test_what_comes_does_not_depend_on_how_batches_are_cut(seed, chosen, cuts):
    whole, cut = feed(seed, chosen), feed(seed, chosen)
    pieces = []
    for size in cuts:
        cut.batch_size = size
        pieces.append(cut.take())
    assert np.array_equal(np.concatenate(pieces), whole.take(sum(cuts)))
    assert cut.samples_seen == whole.samples_seen == sum(cuts)


@given(seed=seeds, ids=st.lists(st.integers(0, SIZE - 1), min_size=1, unique=True), before=st.integers(0, 40))
def test_every_selected_sample_comes_once_an_epoch_from_the_first_batch_on(seed, ids, before):
    made = feed(seed)
    made.take(before)
    made.select(Selection((part(*ids),)))
    epochs = made.take(3 * len(ids)).reshape(3, len(ids))
    assert np.array_equal(np.sort(epochs), np.tile(np.sort(ids), (3, 1)))
    assert made.epoch == 3


@given(seed=seeds, ids=st.lists(st.integers(0, SIZE - 1), min_size=1, unique=True), count=st.integers(1, 100))
def test_ids_that_are_not_shuffled_come_as_they_stand(seed, ids, count):
    made = feed(seed, Selection((part(*ids),), shuffled=False))
    assert made.take(count).tolist() == [ids[place % len(ids)] for place in range(count)]


def test_a_feed_without_an_order_counts():
    made = feed(shuffled=False, size=5)
    assert made.take(12).tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]


def test_every_epoch_of_a_selection_has_another_order():
    epochs = feed(selection=Selection((part(*range(30)),))).take(120).reshape(4, 30)
    assert len({tuple(epoch) for epoch in epochs.tolist()}) == 4


@settings(max_examples=30, deadline=None)
@given(seed=seeds, shares=st.lists(st.floats(0.01, 100), min_size=2, max_size=6))
def test_a_mixture_has_its_shares_in_each_1024_places(seed, shares):
    parts = tuple(part(3 * number, 3 * number + 1, share=share) for number, share in enumerate(shares))
    drawn = feed(seed, Selection(parts, shuffled=False)).take(3 * 1024).reshape(3, 1024) // 3
    for places in drawn:
        counts = np.bincount(places, minlength=len(shares))
        exact = 1024 * np.array(shares) / sum(shares)
        assert counts.min() >= 1
        # A source that would have no place has one all the same, which another one has to give.
        assert (np.abs(counts - exact) <= 1 + (exact < 1).sum()).all()


def test_shares_that_fit_are_met_exactly_and_only_their_ratios_count():
    for scale in (1, 7.5):
        parts = (part(0, share=scale), part(1, share=5 * scale), part(2, share=2 * scale))
        drawn = feed(selection=Selection(parts, shuffled=False)).take(2048)
        assert np.bincount(drawn).tolist() == [256, 1280, 512]


def test_a_mixture_is_mixed():
    """No part stands in one row for long: half and half, the longest row of 1024 fair throws is about 10."""
    drawn = feed(selection=Selection((part(0), part(1)), shuffled=False)).take(1024)
    changes = np.flatnonzero(np.diff(drawn))
    assert np.diff(changes).max() < 30


@given(seed=seeds, sizes=st.lists(st.integers(3, 12), min_size=2, max_size=3))
def test_every_sample_of_a_part_comes_once_before_any_comes_twice(seed, sizes):
    starts = np.cumsum([0, *sizes])
    parts = tuple(part(*range(start, start + size), share=size) for start, size in zip(starts[:-1], sizes, strict=True))
    drawn = feed(seed, Selection(parts)).take(150)
    for start, size in zip(starts[:-1], sizes, strict=True):
        own = drawn[(drawn >= start) & (drawn < start + size)]
        whole = own[: len(own) // size * size].reshape(-1, size)
        assert np.array_equal(np.sort(whole), np.tile(np.arange(start, start + size), (len(whole), 1)))


@given(
    seed=seeds, chosen=st.none() | selections(), before=st.integers(0, 50), after=st.integers(0, 50), ends=st.booleans()
)
def test_a_feed_that_is_loaded_goes_on_as_the_one_that_was_saved(seed, chosen, before, after, ends):
    straight = feed(seed)
    straight.take(before)
    straight.select(chosen)
    straight.take(after)
    if ends:
        straight.select(None)
    state = straight.state()
    json.dumps({name: value for name, value in state.items() if name != "selection"})
    loaded = feed(seed)
    loaded.load(state)
    assert loaded.epoch == straight.epoch
    assert np.array_equal(loaded.take(60), straight.take(60))
    assert (loaded.selection is None) == (straight.selection is None)
    if loaded.selection is not None:
        assert loaded.selection.recipe == {"where": "length > 3"}


@settings(max_examples=30, deadline=None)
@given(moves=st.lists(st.sampled_from(["take", "smaller", "larger", "select", "all", "back", "jump"]), max_size=25))
def test_ids_that_are_drawn_at_once_are_those_that_are_drawn_one_by_one(moves: list[str]) -> None:
    """Whatever happens in between: a feed that is made anew for every batch has drawn nothing before."""
    kept, chosen = feed(batch_size=7), Selection((part(1, 4, 9),))
    state = kept.state()
    for move in moves:
        if move in ("smaller", "larger"):
            kept.batch_size = 2 if move == "smaller" else 100
        elif move in ("select", "all"):
            kept.select(chosen if move == "select" else None)
        elif move == "back":
            kept.load(state)
        elif move == "jump":
            kept.samples_seen += 3
        fresh = feed(batch_size=kept.batch_size)
        fresh.load(kept.state())
        assert np.array_equal(kept.peek(5, ahead=3), fresh.peek(8)[3:])
        assert np.array_equal(kept.take(), fresh.take())
        assert kept.samples_seen == fresh.samples_seen


def test_what_is_done_to_a_batch_does_not_reach_the_next_ones() -> None:
    kept, calm = feed(), feed()
    kept.take()[:] = kept.peek(30)[:] = -1
    calm.take()
    assert np.array_equal(kept.take(), calm.take())


FEW = settings(max_examples=25, deadline=None)
sources = st.lists(st.tuples(st.integers(1, 60), st.floats(0.01, 100)), min_size=1, max_size=5)


def joined(sizes_and_shares, seed: int = 3, batch_size: int = 4, **more) -> Feed:
    size = sum(size for size, _ in sizes_and_shares)
    return Feed(size, seed, batch_size, shares=sizes_and_shares, **more)


@FEW
@given(seed=seeds, sizes_and_shares=sources, end=st.integers(0, 3000))
def test_the_expected_counts_of_a_mixture_are_those_that_come(seed, sizes_and_shares, end):
    made = joined(sizes_and_shares, seed)
    bounds = np.cumsum([size for size, _ in sizes_and_shares])
    drawn = np.searchsorted(bounds, made.take(end), side="right")
    assert made.counts(end) == np.bincount(drawn, minlength=len(bounds)).tolist()


@settings(max_examples=15, deadline=None)
@given(seed=seeds, shares=st.lists(st.floats(0.001, 1), min_size=2, max_size=50))
def test_of_65536_samples_each_source_has_its_share_to_the_nearest_sample(seed, shares):
    counts = np.array(joined([(2, share) for share in shares], seed).counts(1 << 16))
    assert np.abs(counts - (1 << 16) * np.array(shares) / sum(shares)).max() <= 1


@FEW
@given(seed=seeds, sizes_and_shares=sources)
def test_a_source_gives_each_of_its_samples_once_an_epoch(seed, sizes_and_shares):
    made = joined(sizes_and_shares, seed)
    drawn, start = made.take(500), 0
    for size, _ in sizes_and_shares:
        own = drawn[(drawn >= start) & (drawn < start + size)]
        whole = own[: len(own) // size * size].reshape(-1, size) - start
        assert np.array_equal(np.sort(whole), np.tile(np.arange(size), (len(whole), 1)))
        start += size


@FEW
@given(seed=seeds, sizes_and_shares=sources, ids=st.integers(1, 3), before=st.integers(0, 50))
def test_a_selection_replaces_the_mixture_and_gives_it_back_where_it_would_be(seed, sizes_and_shares, ids, before):
    straight, back = joined(sizes_and_shares, seed), joined(sizes_and_shares, seed)
    straight.take(before + 6)
    back.take(before)
    back.select(Selection((part(*range(min(ids, back.num_samples))),)))
    assert back.take(6).max() < ids
    back.select(None)
    assert np.array_equal(back.take(50), straight.take(50))


def test_sources_that_are_not_the_whole_are_refused():
    with pytest.raises(ValueError, match="do not add up"):
        Feed(10, 0, 2, shares=[(4, 1.0), (5, 1.0)])


def test_a_feed_of_one_source_has_nothing_to_count():
    assert feed().counts(100) == []


def test_the_batch_size_is_the_configs_or_a_commands_and_is_not_loaded():
    saved, loaded = feed(batch_size=9), feed(batch_size=2)
    loaded.load(saved.state())
    assert loaded.batch_size == 2


@given(seed=seeds, chosen=selections(), before=st.integers(0, 50), meanwhile=st.integers(0, 50))
def test_after_a_selection_the_whole_stream_is_where_it_would_be(seed, chosen, before, meanwhile):
    straight, back = feed(seed), feed(seed)
    straight.take(before + meanwhile)
    back.take(before)
    back.select(chosen)
    back.take(meanwhile)
    back.select(None)
    assert np.array_equal(back.take(50), straight.take(50))


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ((), "a selection must have a part"),
        ((part(),), "must name samples from 0 to 39"),
        ((part(0), part(40)), "must name samples from 0 to 39"),
        ((part(-1),), "must name samples from 0 to 39"),
        ((part(0, share=0.0), part(1)), "must be above 0, not 0.0"),
        ((part(0, share=float("nan")), part(1)), "must be above 0, not nan"),
    ],
)
def test_a_selection_that_is_none_changes_nothing(parts, reason):
    made, untouched = feed(), feed()
    with pytest.raises(ValueError, match=reason):
        made.select(Selection(parts))
    assert made.selection is None
    assert np.array_equal(made.take(90), untouched.take(90))
