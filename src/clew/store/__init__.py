"""The store: a SQL index of all runs, derived from their journals and always rebuildable from them.

Nothing that trains knows of it. This module imports neither SQLAlchemy nor a driver; :func:`open_store` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clew.errors import require
from clew.runs import Workspace

if TYPE_CHECKING:
    from clew.store.database import Store


def open_store(workspace: Workspace, url: str | None = None) -> Store:
    """Return the store of a workspace; nothing is opened or made yet.

    Args:
        workspace: The runs that it indexes.
        url: A database; None takes ``$CLEW_STORE``, else ``.clew/store.sqlite`` in the workspace.

    Raises:
        MissingLibrary: If the extra ``store``, or for PostgreSQL ``postgres``, is not installed.
        UserError: If the URL cannot be understood.
    """
    require("sqlalchemy", extra="store")
    require("alembic", extra="store")
    from clew.store.database import Store
    from clew.store.location import locate

    location = locate(workspace, url)
    if location.dialect == "postgresql":
        require("psycopg", extra="postgres")
    return Store(location)
