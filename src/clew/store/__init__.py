"""The store: a SQL index of all runs, derived from their journals and always rebuildable from them.

Nothing that trains knows of it. This module imports neither SQLAlchemy nor a driver; :func:`open_store` does.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from clew.errors import UserError, require
from clew.runs import Workspace
from clew.store.filesystems import file_system, is_network

if TYPE_CHECKING:
    from clew.store.database import Store


def open_store(workspace: Workspace, url: str | None = None, *, kind_of: Callable[[Path], str] = file_system) -> Store:
    """Return the store of a workspace; nothing is opened or made yet.

    Args:
        workspace: The runs that it indexes.
        url: A database; None takes ``$CLEW_STORE``, else ``.clew/store.sqlite`` in the workspace.
        kind_of: Says on which kind of file system a path lies.

    Raises:
        MissingLibrary: If the extra ``store``, or for PostgreSQL ``postgres``, is not installed.
        UserError: If the URL cannot be understood, or a SQLite file would lie on a network file system.
    """
    require("sqlalchemy", extra="store")
    require("alembic", extra="store")
    from clew.store.database import Store
    from clew.store.location import locate

    location = locate(workspace, url)
    if location.dialect == "sqlite" and is_network(kind := kind_of(location.path.parent)):
        raise UserError(
            f"the store would lie on a network file system ({kind}), where SQLite's write-ahead log gets damaged",
            where=location.shown,
            hint="name a file on a local disk, or a PostgreSQL server, with --store URL or CLEW_STORE; runs may stay",
        )
    if location.dialect == "postgresql":
        require("psycopg", extra="postgres")
    return Store(location)
