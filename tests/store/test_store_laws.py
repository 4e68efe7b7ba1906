"""Any interleaving of appends and syncs gives what a rebuild gives, and that is what ``read_events`` yields."""

from __future__ import annotations

from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_content import column, content, finish, line, make_run, metric, open_at, write

from clew.runs import Workspace, read_events
from clew.store import ingest
from clew.store.ingest import rebuild, sync

STEPS = st.integers(0, 8)
EVENTS = st.one_of(
    st.builds(lambda step, value: metric(step, loss=value), STEPS, st.sampled_from([0.5, "nan", -3.0])),
    st.builds(lambda step: line("restore", step=step), STEPS),
    st.builds(lambda step: line("checkpoint", step=step, path="p"), STEPS),
    st.builds(lambda at, name: line("command", id=name, at=at), STEPS, st.sampled_from("xy")),
    st.builds(lambda to, inside: line("went_back", to=to, contained=inside), STEPS, st.sampled_from([[], ["x"]])),
    st.just(line("attempt", number=1, environment={"python": "3"})),
    st.just(b"damage\n"),
)
FIRST = st.builds(lambda step: [line("restore", step=step)], st.integers(0, 4))
LINES = st.lists(EVENTS, min_size=2, max_size=7)
KEYS = [(1, 0), (1, 1), (2, 0), (2, 1), (3, 0)]
FILES = st.fixed_dictionaries(
    {key: st.builds(list.__add__, FIRST, LINES) if key in [(2, 0), (3, 0)] else LINES for key in KEYS}
)
# Appends of so many bytes to a file, and syncs in pieces of so many bytes. Attempts that were replaced write on, too.
APPENDS = st.tuples(st.sampled_from(KEYS), st.sampled_from([30, 150, 1000]))
MOVES = st.lists(st.one_of(APPENDS, APPENDS, st.sampled_from([1, 100, 10_000]), st.just("finish")), max_size=16)


def play(workspace, store, files, moves, last):
    """Write and sync in that order; what has not been written in the end is a torn tail or missing."""
    run = make_run(workspace)
    left = {key: b"".join(lines) for key, lines in files.items()}
    for move in moves:
        if isinstance(move, int):
            with mock.patch.object(ingest, "PIECE_BYTES", move):
                sync(store, workspace)
        elif move == "finish":
            if run.result is None:
                finish(run, exact=0.5)
        else:
            (attempt, rank), count = move
            write(run, left[attempt, rank][:count], attempt=attempt, rank=rank)
            left[attempt, rank] = left[attempt, rank][count:]
    with mock.patch.object(ingest, "PIECE_BYTES", last):
        sync(store, workspace)
    return run


def expected_steps(run, tmp_path):
    """What counts of the lines that are whole."""
    tmp_path.mkdir()
    for path in (run.path / "journal").glob("*.jsonl"):
        whole = path.read_bytes()
        (tmp_path / path.name).write_bytes(whole[: whole.rfind(b"\n") + 1])
    found = [
        (event["kind"], event["attempt"], event["rank"], event.get("step", event.get("at")))
        for event in read_events(tmp_path, frozenset({"metric", "checkpoint", "command"}))
    ]
    return sorted(found, key=repr)


def check(folder, url, files, moves, last):
    workspace = Workspace(folder / "w")
    store = open_at(workspace, url)
    run = play(workspace, store, files, moves, last)
    incremental = content(store)
    found = [("metric", *row) for row in column(store, "metrics", "attempt", "rank", "step")]
    found += [("checkpoint", *row) for row in column(store, "checkpoints", "attempt", "rank", "step")]
    found += [("command", *row) for row in column(store, "commands", "attempt", "rank", "at")]
    assert sorted(found, key=repr) == expected_steps(run, folder / "whole")
    fresh = open_at(workspace, f"sqlite:///{folder}/fresh.sqlite")
    rebuild(fresh, workspace)
    assert content(fresh) == incremental
    rebuild(store, workspace)
    assert content(store) == incremental


QUIET = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.slow
@settings(QUIET, max_examples=20)
@given(FILES, MOVES, st.integers(1, 500))
def test_any_interleaving_of_appends_and_syncs_equals_a_rebuild(tmp_path_factory, files, moves, last):
    check(tmp_path_factory.mktemp("law"), None, files, moves, last)


@pytest.mark.slow
@settings(QUIET, max_examples=6)
@given(FILES, MOVES, st.integers(1, 500))
def test_the_same_holds_in_postgresql_and_both_hold_the_same(server, tmp_path_factory, files, moves, last):
    check(tmp_path_factory.mktemp("law"), server.schema(), files, moves, last)
