"""Which checkpoints stay: laws over any history of saves, prunes, tags and damage."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clew.checkpoints import CheckpointStore
from clew.checkpoints.retention import Retention, kept

Steps = st.lists(st.integers(1, 60), unique=True, min_size=1).map(lambda steps: sorted(steps, reverse=True))


@settings(deadline=None)
@given(Steps, st.integers(1, 5), st.one_of(st.none(), st.integers(1, 20)), st.data())
def test_what_is_kept(steps, last, every, data):
    rated = data.draw(st.dictionaries(st.sampled_from(steps), st.sampled_from([1.0, 2.0, 3.0])))
    tagged = data.draw(st.frozensets(st.integers(1, 60)))
    found = kept(steps, rated, Retention(last, every, tagged))
    assert found <= set(steps)
    assert set(steps[:last]) <= found
    assert tagged & set(steps) <= found
    assert not rated or min(rated.values()) in {rated[step] for step in found & rated.keys()}
    assert every is None or {step for step in steps if step % every == 0} <= found
    assert (
        kept(
            sorted(found, reverse=True), {s: m for s, m in rated.items() if s in found}, Retention(last, every, tagged)
        )
        == found
    )
    permanent = len([step for step in steps if every is not None and step % every == 0])
    assert len(found) <= last + 1 + len(tagged) + permanent


@given(Steps, st.integers(1, 5), st.data())
def test_what_is_to_stay_until_the_next_takes_no_place_among_the_newest(steps, last, data):
    passing = data.draw(st.frozensets(st.sampled_from(steps)))
    others = [step for step in steps if step not in passing]
    assert kept(steps, {}, Retention(last, passing=passing)) == set(others[:last])
    wanted = data.draw(st.frozensets(st.sampled_from(steps)))
    assert kept(steps, {}, Retention(last, steps=wanted, passing=passing)) == {*others[:last], *wanted}


def write(folder: Path) -> None:
    (folder / "weights").write_bytes(b"w" * 64)


def spoil(path: Path) -> None:
    (path / "weights").write_bytes(b"w" * 63 + b"x")


Acts = st.lists(
    st.tuples(st.sampled_from(["save", "prune", "prune all", "spoil", "tag"]), st.integers(0, 9)), max_size=25
)


@settings(max_examples=60, deadline=None)
@given(acts=Acts)
def test_the_only_good_one_is_never_deleted(tmp_path_factory, acts):
    store = CheckpointStore(tmp_path_factory.mktemp("run"))
    step = 0
    for act, number in acts:
        good = {one.step for one in store.all() if not one.problem()}
        if act == "save":
            step += 1
            store.save(step, write, metric=float(number))
            store.prune(1 + number % 3, keep_every=4, saved=step)
        elif act.startswith("prune"):
            store.prune(1, keep_every=None if act == "prune all" else 1 + number)
        elif act == "spoil" and store.all():
            spoil(store.all()[number % len(store.all())].path)
            continue
        elif act == "tag" and store.all():
            store.tag("calm", store.all()[number % len(store.all())].step)
        left = {one.step for one in store.all() if not one.problem()}
        assert bool(left) >= bool(good)
        assert not good or max(left) >= max(good)


def test_the_permanent_schedule_outlives_the_newest(tmp_path):
    store = CheckpointStore(tmp_path)
    for step in range(1, 11):
        store.save(step, write)
        store.prune(1, keep_every=4, saved=step)
    assert [one.step for one in store.all()] == [10, 8, 4]
    assert store.prune(1) == [4, 8]


def test_without_room_nothing_is_begun_and_what_is_there_stays(tmp_path):
    free = [10**9]
    store = CheckpointStore(tmp_path, free=lambda folder: free[0])
    store.save(1, write)
    free[0] = 1000
    calls: list[Path] = []
    with pytest.raises(OSError, match=r"a checkpoint takes about 65,600 bytes, and 1,000 are free") as caught:
        store.save(2, calls.append)
    assert (caught.value.errno, calls) == (errno.ENOSPC, [])
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    assert store.newest_good()[0].step == 1
    free[0] = 10**6
    store.save(2, write)
    assert store.newest_good()[0].step == 2


def test_several_writers_fill_one_folder_and_one_commits_it(tmp_path):
    """As the ranks of a run do, a file each."""
    store, other = CheckpointStore(tmp_path, attempt=1), CheckpointStore(tmp_path, attempt=1)
    staging = store.stage(7)
    for rank in range(3):
        (staging / f"rank-{rank}").write_text(str(rank))
    assert other.all() == []
    assert store.commit(staging, 7).problem() == ""
    assert sorted(other.all()[0].manifest.files) == ["rank-0", "rank-1", "rank-2"]
