"""A run knows nothing of the store."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from store_content import column, content, finish, line, make_run, metric, open_at, write

import clew
from clew.runs import State
from clew.store import ingest
from clew.store.errors import StoreError
from clew.store.ingest import rebuild, status, sync
from support import tiny_run, wait_until

SOURCE = Path(clew.__file__).parent
ABOVE = {"store", "cli", "api.py", "hub"}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_no_module_below_the_store_imports_it_or_a_database():
    below = [path for path in SOURCE.rglob("*.py") if path.relative_to(SOURCE).parts[0] not in ABOVE]
    assert len(below) > 50
    for path in below:
        names = set(imports(path))
        assert not {name for name in names if name.startswith(("clew.store", "sqlalchemy", "sqlite3", "psycopg"))}, path


def loaded_by(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.split())


def test_a_worker_loads_no_database():
    loaded = loaded_by("import sys, clew.worker; print(*sys.modules)")
    assert not loaded & {"sqlalchemy", "alembic", "psycopg", "sqlite3", "clew.store"}


def test_importing_the_store_loads_nothing_heavy():
    loaded = loaded_by("import sys, clew.store, clew.cli.store, clew.cli.query, clew.cli.export; print(*sys.modules)")
    assert not loaded & {"sqlalchemy", "alembic", "psycopg", "sqlite3", "torch", "numpy", "pyarrow", "pydantic"}


def test_the_whole_store_works_without_torch_and_numpy():
    modules = ", ".join(
        f"clew.store.{path.stem}" for path in (SOURCE / "store").glob("*.py") if path.stem != "__init__"
    )
    assert not loaded_by(f"import sys, {modules}; print(*sys.modules)") & {"torch", "numpy", "pyarrow", "transformers"}


@pytest.mark.slow
@pytest.mark.parametrize("at", [1, 2, 4])
def test_a_server_that_is_killed_in_the_middle_of_a_sync_takes_everything_in_once(at, workspace, server, monkeypatch):
    """With SIGKILL, after rows were sent and before they are committed."""
    store = open_at(workspace, server.schema())
    for name in "ab":
        run = make_run(workspace, name)
        write(run, line("restore", step=0), *(metric(step, loss=1 / step, lr=0.1) for step in range(1, 200)))
        write(run, line("restore", step=150), *(metric(step, loss=7.0) for step in range(151, 160)), attempt=2)
        finish(run, exact=0.5)
    pull, pulled = ingest.pull, []

    def killing(connection, run, budget):
        done = pull(connection, run, budget)
        pulled.append(run.id)
        if len(pulled) == at:
            server.kill_hard()
        return done

    monkeypatch.setattr(ingest, "PIECE_BYTES", 4000)
    monkeypatch.setattr(ingest, "pull", killing)
    try:
        with pytest.raises(StoreError, match="the store does not answer"):
            sync(store, workspace)
    finally:
        server.start()
    sync(store, workspace)
    after = content(store)
    assert len(pulled) > at
    points = column(store, "metrics", "run", "step", "name")
    assert len(points) == len(set(points)) == 2 * (150 * 2 + 9)
    rebuild(store, workspace)
    assert content(store) == after
    assert status(store, workspace).behind == []


@pytest.mark.slow
def test_killing_the_database_changes_nothing_in_a_run(workspace, server):
    url = server.schema()
    store = open_at(workspace, url)
    run = tiny_run(workspace, name="steady", until=60, pause=0.02, every=10)
    attempt = run.states.queue()
    run.states.move(State.STARTING, attempt=attempt)
    words = [sys.executable, "-m", "clew.worker", str(run.path), str(attempt)]
    with subprocess.Popen(words, env={**os.environ, "CLEW_STORE": url}) as worker:
        wait_until(lambda: any(run.events("metric")))
        sync(store, workspace)
        try:
            server.kill()
            with pytest.raises(StoreError, match="does not answer"):
                sync(store, workspace)
            assert worker.wait(60) == 0
        finally:
            server.start()
    sync(store, workspace)
    assert run.state is State.COMPLETED
    assert {step for (step,) in column(store, "metrics", "step")} == set(range(1, 61))
    before = content(store)
    rebuild(store, workspace)
    assert content(store) == before
