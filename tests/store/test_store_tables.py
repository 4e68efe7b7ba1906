from __future__ import annotations

from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from clew.store import schema
from clew.store.tables import CONTENT, REVISION, metadata


def test_the_migrations_lead_to_the_tables_that_the_code_uses(any_store):
    any_store.prepare()
    with any_store.writing() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_the_newest_migration_is_the_revision_that_the_code_expects():
    config = Config()
    config.set_main_option("script_location", "clew.store:migrations")
    assert ScriptDirectory.from_config(config).get_heads() == [REVISION]


def test_bringing_the_tables_up_to_date_twice_changes_nothing(any_store):
    any_store.prepare()
    any_store.prepare()
    with any_store.reading() as connection:
        assert schema.revision(connection) == REVISION
        assert schema.is_whole(connection)


def test_sqlite_writes_ahead_so_that_readers_never_wait(store):
    store.prepare()
    with store.reading() as connection:
        assert connection.exec_driver_sql("pragma journal_mode").scalar() == "wal"


def test_every_table_of_the_index_can_be_read_by_run():
    names = "runs attempts metrics rollouts generations samples commands checkpoints failures energy artifacts"
    assert set(names.split()) <= {table.name for table in CONTENT}
    assert all("run" in table.columns for table in CONTENT)
