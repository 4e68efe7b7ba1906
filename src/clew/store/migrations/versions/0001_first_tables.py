"""The first tables."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
KINDS: dict[str, Any] = {"text": TEXT, "whole": sa.BigInteger(), "number": sa.Double()}

EVENTS = "run:text! attempt:whole! rank:whole! step:whole t:number "
TABLES = {
    "runs": "run:text* uid:text job:text state:text attempt:whole created:number changed:number seconds:number "
    "target:text plan:text stage:text parent:text fork_step:whole config_hash:text code_hash:text failure:text "
    "reason:text config:text result:text",
    "results": "run:text* name:text* value:number not_finite:text",
    "attempts": "run:text* attempt:whole* started:number ended:number restored_step:whole environment:text",
    "metrics": EVENTS + "name:text value:number not_finite:text",
    "rollouts": EVENTS + "id:text prompt:text completion:text reward:number advantage:number rewards:text data:text",
    "generations": EVENTS + "position:whole id:text prompt:text completion:text reference:text scores:text data:text",
    "samples": EVENTS + "id:text prompt:text completion:text data:text",
    "commands": EVENTS + "id:text verb:text issuer:text at:whole outcome:text args:text data:text",
    "checkpoints": EVENTS + "path:text metric:number data:text",
    "failures": EVENTS + "kind:text error:text reason:text at:whole data:text",
    "energy": EVENTS + "meter:text joules:number seconds:number data:text",
    "artifacts": EVENTS + "name:text path:text sha256:text bytes:whole data:text",
    "offsets": "run:text* file:text* position:whole stamp:whole",
    "store": "workspace:text*",
}
"""Columns as ``name:kind``; ``*`` is a part of the primary key, ``!`` is never null."""


def upgrade() -> None:
    """Make the tables and the indexes of those that hold events."""
    for name, columns in TABLES.items():
        op.create_table(name, *map(_column, columns.split()))
        if columns.startswith(EVENTS):
            op.create_index(f"ix_{name}_run", name, ["run", "name", "step"] if name == "metrics" else ["run", "step"])


def _column(text: str) -> sa.Column[Any]:
    name, _, kind = text.partition(":")
    key = kind.endswith("*")
    return sa.Column(
        name, KINDS[kind.rstrip("*!")], primary_key=key, nullable=not kind.endswith(("*", "!")), autoincrement=False
    )
