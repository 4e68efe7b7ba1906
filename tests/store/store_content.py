"""What the tests of the store share: runs without workers, and the content of a store as plain values."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from sqlalchemy import select

from clew.runs import JobResult, Owner, Run, RunInfo, State, Workspace, create_run
from clew.store import open_store
from clew.store.database import Store
from clew.store.tables import metadata

Content = dict[str, list[tuple[Any, ...]]]


def make_run(workspace: Workspace, name: str = "a", config: str = "job: eval\nseed: 3\n", **info: Any) -> Run:
    """A run in state ``created``."""
    workspace.runs.mkdir(parents=True, exist_ok=True)
    return create_run(workspace.runs, RunInfo(name, "eval", **info), config, {})


def line(kind: str, **fields: Any) -> bytes:
    return (json.dumps({"t": 1.5, "kind": kind, **fields}, ensure_ascii=False) + "\n").encode("utf-8", "surrogatepass")


def metric(step: Any, **values: Any) -> bytes:
    return line("metric", step=step, values=values)


def write(run: Run, *lines: bytes, attempt: int = 1, rank: int = 0) -> Path:
    """Append to a journal, as a worker of that attempt and rank would."""
    path = run.path / "journal" / f"{attempt}-{rank}.jsonl"
    with path.open("ab") as stream:
        stream.writelines(lines)
    return path


def finish(run: Run, **metrics: float) -> None:
    """Let the run complete."""
    attempt = run.states.queue()
    for state in (State.STARTING, State.RUNNING):
        run.states.move(state, attempt=attempt, owner=Owner.current())
    JobResult(run.id, "eval", "completed", 2.5, attempt, metrics=metrics).save(run.path)
    run.states.move(State.COMPLETED, attempt=attempt)


def content(store: Store) -> Content:
    """Everything that a store holds, in an order of its own."""
    with store.reading() as connection:
        return {
            table.name: sorted((tuple(row) for row in connection.execute(select(table))), key=repr)
            for table in metadata.sorted_tables
        }


def column(store: Store, table: str, *names: str) -> list[tuple[Any, ...]]:
    """Some columns of a table, sorted."""
    with store.reading() as connection:
        chosen = metadata.tables[table]
        return sorted((tuple(row) for row in connection.execute(select(*(chosen.c[name] for name in names)))), key=repr)


class Server:
    """A PostgreSQL server of our own on loopback, run by somebody who is not root."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="clew-pg-"))
        self.password = secrets.token_hex(8)
        self._identity: dict[str, Any] = {}
        if os.geteuid() == 0:
            account = pwd.getpwnam("postgres")
            self._identity = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
            os.chown(self.folder, account.pw_uid, account.pw_gid)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None
        secret = self.folder / "password"
        secret.write_text(self.password)
        secret.chmod(0o644)
        words = ["--auth=scram-sha-256", "--username=clew", f"--pwfile={secret}", "--no-sync", "--encoding=UTF8"]
        # A locale whose order of words is not that of bytes, where the machine has one.
        self._run(program("initdb"), "--pgdata", str(self.folder / "data"), "--locale=C.UTF-8", *words)

    def url(self, schema: str = "public", password: str | None = None) -> str:
        secret = self.password if password is None else password
        options = f"?options=-csearch_path%3D{schema}"
        return f"postgresql://clew:{secret}@127.0.0.1:{self.port}/postgres{options}"

    def start(self) -> None:
        place = ["-D", str(self.folder / "data"), "-k", str(self.folder), "-h", "127.0.0.1", "-p", str(self.port)]
        self._process = subprocess.Popen(
            [program("postgres"), *place, "-F"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self.folder,
            **self._identity,
        )
        deadline = time.monotonic() + 60
        while not self._answers():
            assert self._process.poll() is None, "PostgreSQL did not start"
            assert time.monotonic() < deadline, "PostgreSQL does not answer"
            time.sleep(0.05)

    def kill(self) -> None:
        """End it at once, as a crash would."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(30)
            self._process = None

    def kill_hard(self) -> None:
        """Kill it and all its processes with SIGKILL, and return when none is left."""
        assert self._process is not None
        family = [self._process.pid, *_children(self._process.pid)]
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait(30)
        self._process = None
        deadline = time.monotonic() + 30
        while any(_is_there(pid) for pid in family):
            assert time.monotonic() < deadline, "PostgreSQL does not die"
            time.sleep(0.01)

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def execute(self, statement: str) -> None:
        import psycopg

        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(statement)

    def schema(self) -> str:
        """Make a schema and return a URL of it: a database for one test."""
        name = f"t{secrets.token_hex(4)}"
        self.execute(f"create schema {name}")
        return self.url(name)

    def _answers(self) -> bool:
        import psycopg

        try:
            psycopg.connect(self.url(), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def _run(self, *words: str) -> None:
        subprocess.run(words, check=True, capture_output=True, cwd=self.folder, timeout=120, **self._identity)


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _is_there(pid: int) -> bool:
    """Say whether a process is there; one that has ended and waits to be asked counts as gone."""
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def program(name: str) -> str:
    """The path of a program of PostgreSQL; empty where there is none."""
    found = shutil.which(name)
    return found or next(map(str, sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))), "")


def open_at(workspace: Workspace, url: str | None = None, patience: float = 10.0) -> Store:
    store = open_store(workspace, url)
    store.patience = patience
    return store
