"""Which samples a step sees is the same however many processes share its batches, and whenever they were started."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from clew.data.feed import Feed
from clew.inspection.samples import Part, Selection
from clew.sharding.devices import shard_batch

SIZE = 60
BATCH = 8
FEW = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**40)
worlds = st.sampled_from([1, 2, 4, 8])
mixtures = st.sampled_from([(), ((20, 0.7), (40, 0.3)), ((10, 5.0), (45, 1.0), (5, 0.1))])


@st.composite
def selections(draw: st.DrawFn) -> Selection:
    ids = st.lists(st.integers(0, SIZE - 1), min_size=1, max_size=SIZE, unique=True)
    drawn = draw(st.lists(st.tuples(ids, st.floats(0.1, 10)), min_size=1, max_size=3))
    parts = tuple(Part(np.array(one, dtype=np.int64), share) for one, share in drawn)
    return Selection(parts, shuffled=draw(st.booleans()))


def feed(seed: int, mixture: Any = (), batch_size: int = BATCH) -> Feed:
    return Feed(SIZE, seed, batch_size, shares=mixture)


def world(size: int, seed: int, mixture: Any, state: Any = None, batch_size: int = BATCH) -> list[Feed]:
    """The feeds of the processes of a world, each made for itself, from a checkpoint if there is one."""
    feeds = [feed(seed, mixture, batch_size) for _ in range(size)]
    if state is not None:
        for one in feeds:
            one.load(state)
    return feeds


def step(feeds: list[Feed]) -> np.ndarray:
    """What all processes together see in a step, in the order of their ranks."""
    return np.concatenate([shard_batch(one.take(), rank, len(feeds)) for rank, one in enumerate(feeds)])


@FEW
@given(seed=seeds, mixture=mixtures, size=worlds, batch_size=st.integers(1, 20), steps=st.integers(1, 20))
def test_all_ranks_together_see_what_one_process_sees(seed, mixture, size, batch_size, steps):
    alone, together = feed(seed, mixture, batch_size), world(size, seed, mixture, batch_size=batch_size)
    for _ in range(steps):
        assert np.array_equal(step(together), alone.take())


@FEW
@given(
    seed=seeds,
    mixture=mixtures,
    chosen=st.none() | selections(),
    attempts=st.lists(st.tuples(worlds, st.integers(0, 9)), min_size=1, max_size=5),
)
def test_a_world_that_changes_its_size_in_mid_epoch_goes_on_with_the_same_samples(seed, mixture, chosen, attempts):
    alone, state = feed(seed, mixture), None
    alone.select(chosen)
    begun = world(1, seed, mixture)[0]
    begun.select(chosen)
    state = begun.state()
    for size, steps in attempts:
        feeds = world(size, seed, mixture, state)
        for _ in range(steps):
            assert np.array_equal(step(feeds), alone.take())
        states = [one.state() for one in feeds]
        assert len({one["samples_seen"] for one in states}) == 1
        state = states[-1]


@FEW
@given(seed=seeds, mixture=mixtures, size=worlds, before=st.integers(0, 12), chosen=selections())
def test_a_selection_takes_effect_in_the_same_step_on_every_rank(seed, mixture, size, before, chosen):
    alone, together = feed(seed, mixture), world(size, seed, mixture)
    for change in (chosen, None):
        for _ in range(before):
            assert np.array_equal(step(together), alone.take())
        for one in (alone, *together):
            one.select(change)
            one.batch_size += 3
        assert np.array_equal(step(together), alone.take())


@FEW
@given(seed=seeds, size=worlds)
def test_no_sample_is_lost_or_doubled_in_an_epoch(seed, size):
    feeds = world(size, seed, (), batch_size=10)
    seen = np.concatenate([step(feeds) for _ in range(SIZE // 10)])
    assert np.array_equal(np.sort(seen), np.arange(SIZE))
