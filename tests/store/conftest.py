from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from pathlib import Path

import pytest
from store_content import Server, open_at, program

from clew.runs import Workspace
from clew.store.database import Store

os.environ.pop("CLEW_STORE", None)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    (tmp_path / "runs").mkdir()
    return Workspace(tmp_path)


@pytest.fixture
def store(workspace: Workspace) -> Store:
    """The default store, not made yet."""
    return open_at(workspace)


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A real PostgreSQL."""
    if not program("initdb") or not program("postgres"):
        pytest.skip("there is no PostgreSQL on this machine: neither initdb nor postgres was found")
    if os.geteuid() == 0 and "postgres" not in {account.pw_name for account in pwd.getpwall()}:
        pytest.skip("PostgreSQL refuses to run as root, and this machine has no user postgres")
    made = Server()
    try:
        made.start()
        yield made
    finally:
        made.remove()


@pytest.fixture(params=["sqlite", "postgresql"])
def any_store(request: pytest.FixtureRequest, workspace: Workspace) -> Store:
    """A store in each kind of database."""
    if request.param == "sqlite":
        return open_at(workspace)
    return open_at(workspace, request.getfixturevalue("server").schema())
