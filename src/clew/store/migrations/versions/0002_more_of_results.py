"""Intervals, trackers, and what is known of some runs only: machine, preemption, energy, where a run was pushed to."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
KINDS: dict[str, Any] = {"text": TEXT, "whole": sa.BigInteger(), "number": sa.Double()}
COLUMNS = {
    "runs": "signal:text out_of_memory:whole instance:text preempted:whole joules:number meter:text "
    "energy_estimated:whole remote:text remote_revision:text",
    "results": "low:number high:number method:text",
}


def upgrade() -> None:
    """Add the columns and the table, and have the documents of all runs read again by the next sync."""
    for table, columns in COLUMNS.items():
        for name, _, kind in (column.partition(":") for column in columns.split()):
            op.add_column(table, sa.Column(name, KINDS[kind]))
    op.create_table(
        "trackers",
        sa.Column("run", TEXT, primary_key=True, nullable=False),
        sa.Column("name", TEXT, primary_key=True, nullable=False),
        sa.Column("place", TEXT),
    )
    op.execute(sa.text("delete from offsets where file not like '%.jsonl'"))
