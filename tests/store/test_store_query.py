from __future__ import annotations

import hashlib
import sqlite3

import pytest
from store_content import content, finish, line, make_run, metric, open_at, write

from clew.errors import UserError
from clew.runs import Workspace
from clew.store.errors import StoreDamaged, StoreError
from clew.store.ingest import rebuild, sync
from clew.store.query import read, spell

REFUSED = "a query only reads: this statement was refused, and nothing was changed"
QUESTIONS = [
    "select run, state, job, attempt, seconds from runs order by run",
    "select run, name, count(*), sum(value), avg(value), min(step), max(step) from metrics group by 1, 2 order by 1, 2",
    "select count(*), sum(step), count(value) from metrics",
    "select name, value from results order by value desc, name",
    "select distinct name from metrics order by name",
    "select id, prompt from samples order by id desc",
    "with last as (select run, max(step) as step from metrics group by run) "
    "select m.run, m.value from metrics m join last on m.run = last.run and m.step = last.step and m.name = 'loss' "
    "order by 1",
    "select run, not_finite is not null and step = 1 from metrics where name = 'odd' order by 1, 2",
    "select * from failures order by run, reason",
    "values (1, 'a'), (2, 'b')",
    "select * from runs order by run",
    "select * from results order by run, name",
    "select * from trackers order by run, name",
    "select 1 where 1 = 2",
]


def ask(store, query, **options):
    with read(store, query, **options) as rows:
        return [rows.columns, *rows]


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """Two runs, with words that other collations would put in another order."""
    workspace = Workspace(tmp_path_factory.mktemp("filled"))
    for number, name in enumerate(["B-run", "a-run"]):
        run = make_run(workspace, name)
        write(run, line("restore", step=0), *(metric(step, loss=1 / (step + number)) for step in range(1, 30)))
        write(run, metric(1, odd="nan"), metric(2, Zeta=2), line("failure", error="E", reason="ö"))
        write(run, *(line("sample", id=word, prompt=word * 2) for word in ("b", "B", "a_", "A", "é", "z", "漢")))
        write(run, line("restore", step=20), *(metric(step, loss=7.0) for step in range(21, 25)), attempt=2)
        finish(run, exact=0.1 + number)
    return workspace


@pytest.mark.parametrize("question", QUESTIONS)
def test_both_databases_answer_the_same(filled, both, question):
    first, second = (ask(store, question) for store in both)
    assert first[1:] == second[1:]
    assert [[type(value) for value in row] for row in first[1:]] == [
        [type(value) for value in row] for row in second[1:]
    ]


@pytest.fixture(scope="module")
def both(filled, server):
    """The same runs in SQLite, taken in bit by bit, and in PostgreSQL, rebuilt."""
    stores = open_at(filled), open_at(filled, server.schema())
    sync(stores[0], filled)
    rebuild(stores[1], filled)
    assert content(stores[0]) == content(stores[1])
    return stores


@pytest.fixture(scope="module")
def asked_of(tmp_path_factory, server):
    """One run in a store of each kind."""
    workspace = Workspace(tmp_path_factory.mktemp("asked"))
    write(make_run(workspace), *(metric(step, loss=1.0) for step in range(100)))
    stores = {"sqlite": open_at(workspace), "postgresql": open_at(workspace, server.schema())}
    for store in stores.values():
        sync(store, workspace)
    return stores


@pytest.fixture(params=["sqlite", "postgresql"])
def asked(request, asked_of):
    """A store with one run, which no test changes."""
    return asked_of[request.param]


@pytest.mark.parametrize(
    "statement",
    [
        "delete from runs",
        "insert into runs (run) values ('x')",
        "update runs set state = 'completed'",
        "drop table runs",
        "create table mine (a int)",
        "-- select\ndelete from runs",
        "/* select */ delete from runs",
        "select 1; delete from runs",
        "select 1; commit; delete from runs",
        "commit",
        "pragma query_only = off",
        "attach 'other.sqlite' as other",
        "vacuum into 'copy.sqlite'",
        "copy runs to '/tmp/clew-never'",
        "set transaction read write",
        "explain delete from runs",
    ],
)
def test_a_statement_that_is_no_query_is_refused(asked, statement):
    before = content(asked)
    with pytest.raises(UserError) as caught:
        ask(asked, statement)
    assert caught.value.what == REFUSED
    assert caught.value.exit_code == 2
    assert content(asked) == before


@pytest.mark.parametrize(
    "statement", ["with x as (delete from runs returning *) select * from x", "select 1 into mine"]
)
def test_a_query_that_hides_a_write_changes_nothing(asked, statement):
    before = content(asked)
    with pytest.raises(UserError):
        ask(asked, statement)
    assert content(asked) == before


@pytest.mark.parametrize("call", ["nextval('numbers')", "set_config('transaction_read_only', 'off', true)"])
def test_a_function_that_writes_is_refused_by_the_server(asked_of, call):
    store = asked_of["postgresql"]
    with store.writing() as connection:
        connection.exec_driver_sql("create sequence if not exists numbers")
    with pytest.raises(UserError) as caught:
        ask(store, f"select {call}")
    assert caught.value.what == REFUSED


def test_sqlite_opens_no_other_file_for_a_query(workspace, store):
    sync(store, workspace)
    with pytest.raises(UserError):
        ask(store, "select load_extension('x')")


def test_asking_does_not_touch_the_file(workspace, store):
    make_run(workspace)
    sync(store, workspace)
    before = hashlib.sha256(store.location.path.read_bytes()).hexdigest()
    ask(store, "select * from runs")
    assert hashlib.sha256(store.location.path.read_bytes()).hexdigest() == before


@pytest.mark.parametrize(
    ("query", "cause"),
    [
        ("select * from runz", "runz"),
        ("select nothing from runs", "nothing"),
        ("select from where", "syntax error"),
        ("select count(", ""),
    ],
)
def test_a_query_that_is_wrong_says_why(asked, query, cause):
    with pytest.raises(UserError) as caught:
        ask(asked, query)
    assert caught.value.what.startswith("the query cannot be carried out: ")
    assert cause in caught.value.what


def test_an_empty_query(store):
    with pytest.raises(UserError, match="the query is empty"):
        ask(store, " -- nothing\n")


def test_a_query_that_takes_too_long_is_broken_off(asked):
    endless = "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n"
    with pytest.raises(UserError) as caught:
        ask(asked, endless, timeout=0.2)
    assert str(caught.value) == "the query took longer than 0.2 s\n  --timeout SECONDS gives it more"


def test_a_percent_sign_is_a_percent_sign(asked):
    assert ask(asked, "select run from runs where run like '%a%'")[1:] == [("a",)]
    assert ask(asked, "select 7 % 4")[1:] == [(3,)]


def test_a_reader_does_not_wait_for_a_writer(asked):
    with pytest.raises(ZeroDivisionError), asked.writing() as connection:
        connection.exec_driver_sql("update runs set state = 'changed'")
        assert ask(asked, "select state from runs")[1:] == [("created",)]
        raise ZeroDivisionError  # which undoes it
    assert ask(asked, "select state from runs")[1:] == [("created",)]


def test_an_error_of_the_reader_of_the_rows_passes_through(asked):
    with pytest.raises(BrokenPipeError), read(asked, "select 1"):
        raise BrokenPipeError


def test_without_a_store_the_way_to_one_is_said(store):
    with pytest.raises(StoreError) as caught:
        ask(store, "select 1")
    assert caught.value.what == "there is no store yet"
    assert caught.value.hint.startswith("clew store rebuild")


def test_a_damaged_store_names_the_cure(store):
    store.make_folder()
    store.location.path.write_bytes(b"this is not a database" * 100)
    with pytest.raises(StoreDamaged) as caught:
        ask(store, "select run from runs")
    assert caught.value.what == "the store is damaged: file is not a database"
    assert caught.value.hint == "clew store rebuild makes it again from the runs; nothing is lost"


def test_values_as_json_has_them():
    assert [spell(value) for value in (None, 1, "a", float("inf"), b"\x01", [1])] == [None, 1, "a", "inf", "01", [1]]
    assert sqlite3.sqlite_version_info >= (3, 35)
