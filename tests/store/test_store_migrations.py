"""A store that an earlier version made keeps its content and learns what it could not hold."""

from __future__ import annotations

from alembic import command
from alembic.config import Config
from sqlalchemy import text
from store_content import column, content, finish, line, make_run, metric, write

from clew.runs import JobResult
from clew.runs.following import Record
from clew.runs.pushed import save_remote
from clew.runs.result import Energy, Failure, Remote
from clew.store import schema
from clew.store.database import insert
from clew.store.documents import stamps
from clew.store.ingest import claim, rebuild, sync
from clew.store.tables import REVISION, attempts, metrics, offsets


def full_run(workspace):
    """A run whose result says everything that a result can say."""
    run = make_run(workspace)
    write(run, line("attempt", number=1), metric(1, loss=0.5), line("artifact", name="x", path="artifacts/x"))
    finish(run)
    JobResult(
        "a",
        "eval",
        "completed",
        2.5,
        1,
        metrics={"exact": 0.5, "length": 3.0},
        intervals={"exact": {"low": 0.25, "high": 0.75, "method": "wilson", "n": 10}},
        failure=Failure("killed", "gone", signal="SIGKILL", out_of_memory=True),
        instance="i-1",
        preempted=True,
        energy=Energy(12.5, "rapl", estimated=False),
        remote=Remote("hf://me/a", "me/a", "old"),
        trackers={"wandb": "https://x"},
    ).save(run.path)
    return run


RESULTS = ("name", "value", "low", "high", "method")
FACTS = ("signal", "out_of_memory", "instance", "preempted", "joules", "meter", "energy_estimated", "remote")


def test_everything_that_a_result_says_can_be_asked_for(any_store, workspace):
    run = full_run(workspace)
    sync(any_store, workspace)
    assert column(any_store, "results", *RESULTS) == [
        ("exact", 0.5, 0.25, 0.75, "wilson"),
        ("length", 3.0, None, None, None),
    ]
    assert column(any_store, "runs", *FACTS) == [("SIGKILL", 1, "i-1", 1, 12.5, "rapl", 0, "hf://me/a")]
    assert column(any_store, "runs", "remote_revision") == [("old",)]
    assert column(any_store, "trackers", "run", "name", "place") == [("a", "wandb", "https://x")]
    save_remote(run.path, Remote("hf://me/a", "me/a", "new"))
    Record("mlflow", "tracker", place="http://mlflow").save(run.path)
    assert sync(any_store, workspace).runs == 1
    assert column(any_store, "runs", "remote_revision") == [("new",)]
    assert column(any_store, "trackers", "name", "place") == [("mlflow", "http://mlflow"), ("wandb", "https://x")]
    before = content(any_store)
    rebuild(any_store, workspace)
    assert content(any_store) == before
    assert sync(any_store, workspace).runs == 0


def test_what_is_not_known_is_null_and_not_zero(store, workspace):
    finish(make_run(workspace), exact=1.0)
    sync(store, workspace)
    assert column(store, "runs", *FACTS) == [(None,) * len(FACTS)]
    assert column(store, "results", *RESULTS) == [("exact", 1.0, None, None, None)]


def test_an_artifact_of_an_old_journal_has_no_size_and_of_a_new_one_has_it(any_store, workspace):
    run = make_run(workspace)
    write(run, line("artifact", name="old", path="artifacts/old", sha256="a"))
    write(run, line("artifact", name="new", path="artifacts/new", sha256="b", bytes=7))
    sync(any_store, workspace)
    assert column(any_store, "artifacts", "name", "bytes", "data") == [("new", 7, None), ("old", None, None)]
    before = content(any_store)
    rebuild(any_store, workspace)
    assert content(any_store) == before


def at_first_revision(store, workspace, run):
    """What version 0001 would have made of a run."""
    store.make_folder()
    with store.writing() as connection:
        config = Config()
        config.set_main_option("script_location", "clew.store:migrations")
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        claim(connection, store, workspace)
        connection.execute(text("insert into runs (run, uid, job, state) values ('a', :uid, 'eval', 'completed')"),
                           {"uid": run.info.uid})  # fmt: skip
        connection.execute(text("insert into results (run, name, value) values ('a', 'exact', 0.5)"))
        insert(connection, metrics, [("a", 1, 0, 1, 1.5, "loss", 0.5, None)])
        insert(connection, attempts, [("a", 1, 1.5, 1.5, None, None)])
        connection.execute(text("insert into artifacts (run, attempt, rank, t, name, path) "
                                "values ('a', 1, 0, 1.5, 'x', 'artifacts/x')"))  # fmt: skip
        size = (run.path / "journal/1-0.jsonl").stat().st_size
        insert(connection, offsets, [("a", name, *stamp) for name, stamp in stamps(run).items()])
        insert(connection, offsets, [("a", "1-0.jsonl", size, 0)])


def test_a_database_of_the_first_revision_becomes_what_a_rebuild_makes(any_store, workspace):
    run = full_run(workspace)
    at_first_revision(any_store, workspace, run)
    done = sync(any_store, workspace)
    assert (done.runs, done.bytes) == (1, 0)  # its documents are read again, its journal is not
    with any_store.reading() as connection:
        assert schema.revision(connection) == REVISION
    assert column(any_store, "results", *RESULTS)[0] == ("exact", 0.5, 0.25, 0.75, "wilson")
    assert column(any_store, "metrics", "step", "value") == [(1, 0.5)]
    before = content(any_store)
    rebuild(any_store, workspace)
    assert content(any_store) == before
