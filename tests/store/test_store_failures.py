from __future__ import annotations

import fcntl
import os
import sqlite3
import stat

import pytest
from sqlalchemy import text
from store_content import column, content, make_run, metric, open_at, write

from clew.errors import MissingLibrary, UserError
from clew.store import open_store
from clew.store.errors import StoreDamaged, StoreError, StoreLocked
from clew.store.ingest import rebuild, sync
from clew.store.location import locate
from clew.store.tables import REVISION

PASSWORD = "s3cret-and-long"


def test_a_locked_sqlite_store(workspace, store):
    sync(store, workspace)
    hurried = open_at(workspace, patience=0.1)
    other = sqlite3.connect(store.location.path, isolation_level=None)
    other.execute("begin immediate")
    with pytest.raises(StoreLocked) as caught:
        sync(hurried, workspace)
    assert caught.value.what == "the store is locked: somebody else writes to it"
    assert caught.value.hint == "try again in a moment"
    other.execute("rollback")
    other.close()
    sync(hurried, workspace)


def test_a_locked_postgresql_store(workspace, server):
    url = server.schema()
    store, hurried = open_at(workspace, url), open_at(workspace, url, patience=0.2)
    sync(store, workspace)
    with store.writing(), pytest.raises(StoreLocked):
        sync(hurried, workspace)
    sync(hurried, workspace)


def test_a_store_that_is_being_replaced_is_locked(workspace, store):
    sync(store, workspace)
    hurried = open_at(workspace, patience=0.1)
    with store.guarded(replacing=True), pytest.raises(StoreLocked):
        sync(hurried, workspace)
    assert fcntl.LOCK_EX


@pytest.mark.parametrize("damage", ["overwritten", "cut", "a table is gone"])
def test_a_damaged_store_is_named_and_made_again(workspace, store, damage):
    write(make_run(workspace), *(metric(step, loss=1.0) for step in range(2000)))
    sync(store, workspace)
    before = content(store)
    path = store.location.path
    if damage == "overwritten":
        path.write_bytes(b"x" * 20_000)
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:9000])
    else:
        with sqlite3.connect(path) as connection:
            connection.execute("drop table metrics")
        connection.close()
    write(make_run(workspace, "b"), metric(1, loss=1.0))
    with pytest.raises(StoreDamaged) as caught:
        sync(store, workspace)
    assert caught.value.what.startswith("the store is damaged: ")
    assert caught.value.hint == "clew store rebuild makes it again from the runs; nothing is lost"
    rebuild(store, workspace)
    after = content(store)
    assert set(before["metrics"]) < set(after["metrics"])
    assert len(after["metrics"]) == 2001


def test_a_file_that_is_no_store_is_kept_when_a_store_takes_its_place(workspace, tmp_path):
    path = tmp_path / "letter.txt"
    path.write_text("dear reader " * 100)
    rebuild(open_at(workspace, f"sqlite:///{path}"), workspace)
    assert (tmp_path / "letter.txt.damaged").read_text().startswith("dear reader")


def test_the_database_of_another_program_is_left_alone(any_store, workspace):
    any_store.make_folder()
    with any_store.writing() as connection:
        connection.execute(text("create table runs (mine integer)"))
        connection.execute(text("insert into runs values (7)"))
    for attempted in (sync, rebuild):
        with pytest.raises(StoreError) as caught:
            attempted(any_store, workspace)
        assert caught.value.what == "the database has a table 'runs' that is not of Clew"
    with any_store.writing() as connection:
        assert connection.execute(text("select mine from runs")).scalar() == 7


def test_a_store_that_vanished_is_made_again_by_the_next_sync(workspace, store):
    make_run(workspace)
    sync(store, workspace)
    for path in store.location.path.parent.glob("store.sqlite*"):
        path.unlink()
    sync(store, workspace)
    assert column(store, "runs", "run") == [("a",)]


def test_a_store_of_a_newer_version(any_store, workspace):
    sync(any_store, workspace)
    with any_store.writing() as connection:
        connection.execute(text("update alembic_version set version_num = '9999'"))
    for attempted in (sync, rebuild):
        with pytest.raises(StoreError) as caught:
            attempted(any_store, workspace)
        assert f"made by a newer version of Clew (9999, this one knows {REVISION})" in caught.value.what


def test_a_server_that_is_not_there(workspace):
    store = open_at(workspace, f"postgresql://ann:{PASSWORD}@127.0.0.1:1/db")
    with pytest.raises(StoreError) as caught:
        sync(store, workspace)
    said = str(caught.value)
    assert said.startswith("postgresql://ann@127.0.0.1:1/db: the store does not answer: ")
    assert "runs go on without it" in said
    assert PASSWORD not in said


def test_a_wrong_password_is_never_shown(workspace, server):
    store = open_at(workspace, server.url(password=PASSWORD))
    with pytest.raises(StoreError) as caught:
        sync(store, workspace)
    assert "password authentication failed" in str(caught.value)
    assert PASSWORD not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("url", "what"),
    [
        (f"mysql://ann:{PASSWORD}@host/db", "a store cannot be of the kind 'mysql'"),
        (f"postgresql://ann:{PASSWORD}@host:port/db", "the URL of the store cannot be read"),
        ("store.sqlite", "the store is not given as a URL"),
        ("sqlite://", "a store needs a file"),
        ("sqlite:///:memory:", "a store needs a file"),
    ],
)
def test_a_url_that_cannot_be_used(workspace, monkeypatch, url, what):
    for given in (True, False):
        if not given:
            monkeypatch.setenv("CLEW_STORE", url)
        with pytest.raises(UserError) as caught:
            locate(workspace, url if given else None)
        assert caught.value.what == what
        assert caught.value.where == ("--store" if given else "$CLEW_STORE")
        assert caught.value.hint == "known: sqlite:///FILE, postgresql://USER@HOST/DATABASE"
        assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize("form", ["user:{}@host/db", "host/db?user=ann&password={}", "user:{}@host/db?options=-cx%3D1"])
def test_what_is_shown_of_a_url_has_no_password(workspace, form):
    location = locate(workspace, "postgres://" + form.format(PASSWORD))
    assert PASSWORD not in location.shown
    assert PASSWORD not in repr(location)
    assert location.redact(f"no {PASSWORD} here") == "no *** here"


@pytest.mark.parametrize(("library", "extra"), [("sqlalchemy", "store"), ("alembic", "store"), ("psycopg", "postgres")])
def test_a_missing_library_is_named_with_what_brings_it(workspace, monkeypatch, library, extra):
    def missing(name):
        if name == library:
            raise ModuleNotFoundError(name, name=library)

    monkeypatch.setattr("importlib.import_module", missing)
    with pytest.raises(MissingLibrary) as caught:
        open_store(workspace, "postgresql://host/db")
    assert caught.value.what == f"the library {library!r} is not installed"
    assert caught.value.hint == f"pip install 'clew[{extra}]'"


def test_a_place_that_cannot_be_written(workspace, tmp_path):
    (tmp_path / "file").write_text("")
    store = open_at(workspace, f"sqlite:///{tmp_path}/file/store.sqlite")
    with pytest.raises(StoreError, match="the store cannot be made"):
        sync(store, workspace)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(workspace, tmp_path):
    folder = tmp_path / "closed"
    folder.mkdir(mode=stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(StoreError, match="the store cannot be written"):
        sync(open_at(workspace, f"sqlite:///{folder}/store.sqlite"), workspace)
