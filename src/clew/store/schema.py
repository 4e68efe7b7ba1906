"""The state of the tables: missing, old, current, newer than this program, or not ours."""

from __future__ import annotations

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, inspect, text

from clew.store.errors import REBUILD, StoreDamaged, StoreError
from clew.store.location import Location
from clew.store.tables import REVISION, metadata

VERSIONS = "alembic_version"


def revision(connection: Connection) -> str | None:
    """Return the revision of the tables that are there; None when there are none of ours."""
    if VERSIONS not in inspect(connection).get_table_names():
        return None
    return connection.execute(text(f"select version_num from {VERSIONS}")).scalar()  # noqa: S608 - a constant


def check(connection: Connection, location: Location) -> None:
    """Make sure that the tables are those of this program.

    Raises:
        StoreError: If they are not; it says what to do.
    """
    found = revision(connection)
    if found is None:
        raise StoreDamaged("this is not a store: it has no tables of Clew", where=location.shown, hint=REBUILD)
    refuse_newer(found, location)
    if found != REVISION:
        raise StoreError(f"the store is of an older version ({found})", where=location.shown, hint="clew store sync")


def upgrade(connection: Connection, location: Location) -> None:
    """Bring the tables up to date, from nothing if need be, within the connection's transaction.

    Raises:
        StoreError: If the tables are newer than this program, or belong to something else.
    """
    found = revision(connection)
    if found == REVISION:
        return
    if found is not None:
        refuse_newer(found, location)
    elif strangers := sorted(set(inspect(connection).get_table_names()) & set(metadata.tables)):
        raise StoreError(
            f"the database has a table {strangers[0]!r} that is not of Clew",
            where=location.shown,
            hint="give the store a database or a schema of its own",
        )
    config = Config()
    config.set_main_option("script_location", "clew.store:migrations")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def is_whole(connection: Connection) -> bool:
    """Say whether every table is there."""
    return set(metadata.tables) <= set(inspect(connection).get_table_names())


def drop(connection: Connection) -> None:
    """Take away our tables, and nothing else."""
    metadata.drop_all(connection)
    connection.execute(text(f"drop table if exists {VERSIONS}"))


def refuse_newer(found: str, location: Location) -> None:
    """Raise a StoreError if the tables come from a later version of this program."""
    if found > REVISION:
        raise StoreError(
            f"the store was made by a newer version of Clew ({found}, this one knows {REVISION})",
            where=location.shown,
            hint="upgrade Clew, or give another database with --store",
        )
