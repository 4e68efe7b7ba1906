from __future__ import annotations

import json
import math
import shutil

import pytest
from store_content import column, content, finish, line, make_run, metric, open_at, write

from clew.runs import Owner, State
from clew.store import ingest
from clew.store.ingest import rebuild, status, sync


def steps(store):
    return [(attempt, step) for attempt, step in column(store, "metrics", "attempt", "step")]


def test_every_kind_of_event_has_its_table(any_store, workspace):
    run = make_run(workspace)
    write(
        run,
        line("attempt", number=1, environment={"python": "3.11"}),
        line("restore", step=0),
        metric(1, loss=0.5, lr=1e-3),
        line("rollout", step=1, id="q", prompt="1+1", completion="2", rewards={"exact": 1.0}, reward=1.0, turn=2),
        line("generation", step=1, index=7, id="g", prompt=[{"role": "user"}], completion="x", metrics={"exact": 0.0}),
        line("sample", step=1, id="s", prompt="p", loss=0.25),
        line("command", id="01X", verb="stop", issuer="ann", at=1, outcome="applied"),
        line("checkpoint", step=1, path="checkpoints/step-1", metric=0.4),
        line("checkpoint_bad", at=1, problem="w.bin is missing"),
        line("failure", error="OSError", reason="disk"),
        line("checkpoint_failed", at=2, error="OSError", reason="gone"),
        line("disk_full", at=3, reason="no room"),
        line("energy", step=1, meter="rapl", joules=2.5, seconds=1.0, estimated=False),
        line("artifact", name="model", path="artifacts/model", sha256="ab"),
        line("something new", step=1),
    )
    finish(run, exact=0.75)
    sync(any_store, workspace)
    found = content(any_store)
    where = ("a", 1, 0, 1, 1.5)
    nowhere = ("a", 1, 0, None, 1.5)
    assert found["metrics"] == [(*where, "loss", 0.5, None), (*where, "lr", 0.001, None)]
    assert found["rollouts"] == [(*where, "q", "1+1", "2", 1.0, None, '{"exact":1.0}', '{"turn":2}')]
    assert found["generations"] == [(*where, 7, "g", '[{"role":"user"}]', "x", None, '{"exact":0.0}', None)]
    assert found["samples"] == [(*where, "s", "p", None, '{"loss":0.25}')]
    assert found["commands"] == [(*nowhere, "01X", "stop", "ann", 1, "applied", None, None)]
    assert found["checkpoints"] == [(*where, "checkpoints/step-1", 0.4, None)]
    assert found["failures"] == [
        (*nowhere, "checkpoint_bad", None, "w.bin is missing", 1, None),
        (*nowhere, "checkpoint_failed", "OSError", "gone", 2, None),
        (*nowhere, "disk_full", None, "no room", 3, None),
        (*nowhere, "failure", "OSError", "disk", None, None),
    ]
    assert found["energy"] == [(*where, "rapl", 2.5, 1.0, '{"estimated":false}')]
    assert found["artifacts"] == [(*nowhere, "model", "artifacts/model", "ab", None, None)]
    assert found["attempts"] == [("a", 1, 1.5, 1.5, 0, '{"python":"3.11"}')]
    assert found["results"] == [("a", "exact", 0.75, None, None, None, None)]


def test_a_run_has_a_row_with_its_config_and_its_result(store, workspace):
    finish(make_run(workspace, plan="p", stage="s", config_hash="c0ffee"), exact=1.0)
    sync(store, workspace)
    names = ("run", "job", "state", "attempt", "plan", "stage", "config_hash", "seconds", "config")
    assert column(store, "runs", *names) == [
        ("a", "eval", "completed", 1, "p", "s", "c0ffee", 2.5, '{"job":"eval","seed":3}')
    ]
    assert json.loads(column(store, "runs", "result")[0][0])["status"] == "completed"


def test_the_second_sync_takes_in_only_what_is_new(store, workspace):
    run = make_run(workspace)
    write(run, metric(1, loss=1.0))
    assert sync(store, workspace).bytes > 0
    assert (sync(store, workspace).runs, sync(store, workspace).bytes) == (0, 0)
    write(run, metric(2, loss=0.5))
    assert sync(store, workspace).bytes == len(metric(2, loss=0.5))
    assert steps(store) == [(1, 1), (1, 2)]


def test_a_torn_tail_waits_for_the_rest_of_its_line(store, workspace):
    run = make_run(workspace)
    write(run, metric(1, loss=1.0), metric(2, loss=2.0)[:-9])
    sync(store, workspace)
    sync(store, workspace)
    assert steps(store) == [(1, 1)]
    assert status(store, workspace).behind == ["a"]
    write(run, metric(2, loss=2.0)[-9:])
    sync(store, workspace)
    assert steps(store) == [(1, 1), (1, 2)]
    assert status(store, workspace).behind == []


def test_points_that_a_later_attempt_redoes_are_taken_away(any_store, workspace):
    run = make_run(workspace)
    write(run, line("restore", step=0), *(metric(step, loss=1.0) for step in range(1, 6)))
    sync(any_store, workspace)
    write(run, line("restore", step=3), metric(4, loss=0.5), attempt=2)
    sync(any_store, workspace)
    assert steps(any_store) == [(1, 1), (1, 2), (1, 3), (2, 4)]


def test_an_attempt_that_was_replaced_cannot_add_what_is_done_again(store, workspace):
    run = make_run(workspace)
    write(run, line("restore", step=0), metric(1, loss=1.0))
    write(run, line("restore", step=1), attempt=2)
    sync(store, workspace)
    write(run, metric(2, loss=9.0), line("command", id="x", at=9))
    sync(store, workspace)
    assert steps(store) == [(1, 1)]
    assert column(store, "commands", "id") == [("x",)]


def test_what_is_not_finite_is_null_with_its_name(any_store, workspace):
    write(make_run(workspace), metric(1, a="nan", b="inf", c="-inf", d=math.pi, e=None, f="?", g=True))
    sync(any_store, workspace)
    assert column(any_store, "metrics", "name", "value", "not_finite") == [
        ("a", None, "nan"),
        ("b", None, "inf"),
        ("c", None, "-inf"),
        ("d", math.pi, None),
        ("e", None, None),
        ("f", None, None),
        ("g", 1.0, None),
    ]


def test_text_that_no_database_takes_is_replaced(any_store, workspace):
    run = make_run(workspace)
    lines = [b'{"kind":"sample","id":"a\\u0000b","prompt":"\\ud800","x":["\\ud800\\u0000"]}\n']
    write(run, *lines, line("sample", id="é 漢 🙂"))
    sync(any_store, workspace)
    rows = column(any_store, "samples", "id", "prompt", "data")
    assert rows == [("a\ufffdb", "?", '{"x":["?\\u0000"]}'), ("é 漢 🙂", None, None)]


@pytest.mark.parametrize(
    "damaged",
    [
        b"not json\n",
        b"[1]\n",
        b"\xff\xfe\n",
        b'{"kind": 3}\n',
        b"{}\n",
        b'{"kind":"metric","step":1,"values":[1]}\n',
        b'{"kind":"metric","step":1' + b"0" * 30 + b',"values":{"a":1}}\n',
        b'{"kind":"metric","step":1,"values":{"a":1' + b"0" * 400 + b"}}\n",
        b'{"kind":"restore"}\n',
        b'{"kind":"went_back"}\n',
        b'{"kind":"went_back","to":1' + b"0" * 30 + b',"contained":[[]]}\n',
        b'{"kind":"went_back","to":9,"contained":7}\n',
        b'{"kind":"checkpoint","step":"x","metric":[]}\n',
        b'{"kind":"rollout","t":"nan","reward":{},"rewards":NaN}\n',
    ],
)
def test_no_line_stops_the_ingest(any_store, workspace, damaged):
    write(make_run(workspace), damaged, metric(2, loss=1.0))
    sync(any_store, workspace)
    assert (1, 2) in steps(any_store)


def test_a_journal_of_many_pieces_is_taken_in_whole(any_store, workspace, monkeypatch):
    run = make_run(workspace)
    write(run, *(metric(step, loss=1.0) for step in range(100)))
    write(run, line("restore", step=49), *(metric(step, loss=2.0) for step in range(50, 100)), attempt=2)
    write(make_run(workspace, "b"), metric(1, loss=1.0))
    monkeypatch.setattr(ingest, "PIECE_BYTES", 700)
    done = sync(any_store, workspace)
    assert done.runs == 2
    assert sorted(step for _, step in steps(any_store)) == sorted([1, *range(100)])
    before = content(any_store)
    assert rebuild(any_store, workspace).bytes == done.bytes
    assert content(any_store) == before
    assert status(any_store, workspace).behind == []


def test_a_run_that_is_deleted_meanwhile_does_not_stop_the_others(any_store, workspace, monkeypatch):
    for name in ("a", "b", "c"):
        write(make_run(workspace, name), metric(1, loss=1.0))
    pull = ingest.pull

    def deleted(connection, run, budget):
        found = pull(connection, run, budget)
        if run.id == "b":
            raise FileNotFoundError
        return found

    monkeypatch.setattr(ingest, "pull", deleted)
    sync(any_store, workspace)
    assert column(any_store, "metrics", "run") == [("a",), ("c",)]
    assert column(any_store, "runs", "run") == [("a",), ("c",)]


def test_a_state_and_a_result_that_change_are_followed(store, workspace):
    run = make_run(workspace)
    sync(store, workspace)
    assert column(store, "runs", "state", "attempt") == [("created", 0)]
    attempt = run.states.queue()
    run.states.move(State.STARTING, attempt=attempt)
    sync(store, workspace)
    assert column(store, "runs", "state") == [("starting",)]
    run.states.move(State.FAILED, attempt=attempt, reason="broken")
    sync(store, workspace)
    assert column(store, "runs", "state", "reason") == [("failed", "broken")]
    finish(run, exact=0.5)
    sync(store, workspace)
    assert column(store, "runs", "state", "attempt") == [("completed", 2)]
    assert column(store, "results", "name", "value") == [("exact", 0.5)]


def test_a_worker_that_died_is_interrupted_although_no_file_has_changed(store, workspace, monkeypatch):
    run = make_run(workspace)
    run.states.move(State.STARTING, attempt=run.states.queue())
    sync(store, workspace)
    monkeypatch.setattr(Owner, "is_alive", lambda self: False)
    sync(store, workspace)
    assert column(store, "runs", "state") == [("interrupted",)]


def test_a_run_that_was_deleted_stays_until_the_rebuild(store, workspace):
    run, other = make_run(workspace), make_run(workspace, "b")
    write(run, metric(1, loss=1.0))
    write(other, metric(1, loss=1.0))
    sync(store, workspace)
    shutil.rmtree(run.path)
    sync(store, workspace)
    assert status(store, workspace).gone == ["a"]
    assert len(steps(store)) == 2
    rebuild(store, workspace)
    assert status(store, workspace).gone == []
    assert column(store, "metrics", "run") == [("b",)]


def test_another_run_of_the_same_name_takes_the_place_of_the_first(store, workspace):
    run = make_run(workspace)
    write(run, *(metric(step, loss=1.0) for step in range(5)))
    sync(store, workspace)
    shutil.rmtree(run.path)
    write(make_run(workspace), *(metric(step, other=1.0) for step in range(9)))
    sync(store, workspace)
    assert {name for (name,) in column(store, "metrics", "name")} == {"other"}
    assert len(steps(store)) == 9


def test_a_journal_that_has_lost_its_end_is_read_again(store, workspace):
    run = make_run(workspace)
    path = write(run, metric(1, loss=1.0), metric(2, loss=1.0))
    write(run, metric(3, loss=1.0), attempt=2)
    sync(store, workspace)
    path.write_bytes(metric(1, loss=7.0))
    sync(store, workspace)
    assert column(store, "metrics", "step", "value") == [(1, 7.0), (3, 1.0)]
    (run.path / "journal" / "2-0.jsonl").unlink()
    sync(store, workspace)
    assert steps(store) == [(1, 1)]


def test_a_run_directory_that_is_half_deleted_keeps_what_is_left(store, workspace):
    run = make_run(workspace)
    write(run, metric(1, loss=1.0))
    sync(store, workspace)
    (run.path / "run.json").write_text("{")
    (run.path / "state.json").unlink()
    (run.path / "config.yaml").unlink()
    sync(store, workspace)
    assert column(store, "runs", "state", "job", "config") == [("damaged", None, None)]
    assert steps(store) == [(1, 1)]
    shutil.rmtree(run.path / "journal")
    sync(store, workspace)
    assert steps(store) == []


def test_a_kill_between_rows_and_offset_loses_and_doubles_nothing(any_store, workspace, monkeypatch):
    run = make_run(workspace)
    write(run, metric(1, loss=1.0), metric(2, loss=1.0))
    insert = ingest.insert

    def killed(connection, table, rows):
        if table.name == "offsets":
            raise KeyboardInterrupt
        insert(connection, table, rows)

    monkeypatch.setattr(ingest, "insert", killed)
    with pytest.raises(KeyboardInterrupt):
        sync(any_store, workspace)
    assert steps(any_store) == []
    monkeypatch.undo()
    sync(any_store, workspace)
    assert steps(any_store) == [(1, 1), (1, 2)]


def test_a_store_belongs_to_one_workspace_wherever_it_moves(any_store, workspace, tmp_path):
    make_run(workspace)
    sync(any_store, workspace)
    other = type(workspace)(tmp_path / "other")
    make_run(other, "b")
    shared = open_at(other, any_store.location.url.render_as_string(hide_password=False))
    for refused in (sync, rebuild):
        with pytest.raises(ingest.StoreError) as caught:
            refused(shared, other)
        assert caught.value.what == "the store is the index of another workspace"
        assert "clew store rebuild --take-over" in caught.value.hint
    assert column(any_store, "runs", "run") == [("a",)]
    rebuild(shared, other, take_over=True)
    assert column(any_store, "runs", "run") == [("b",)]


def test_a_workspace_that_was_moved_keeps_its_store(workspace, store, tmp_path):
    make_run(workspace)
    sync(store, workspace)
    moved = tmp_path.with_name(tmp_path.name + "-moved")
    tmp_path.rename(moved)
    there = type(workspace)(moved)
    assert sync(open_at(there), there).runs == 0
