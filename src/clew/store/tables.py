"""The tables. What differs between databases is hidden here, so that both give the same answers.

Text is compared byte by byte. Nested values are JSON in text columns. A number that is not finite is NULL, with its
name in ``not_finite``: SQLite has no NaN.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Double, Index, MetaData, Table, Text
from sqlalchemy.types import TypeEngine

REVISION = "0002"
"""The migration that the tables below stand for."""

TEXT: TypeEngine[str] = Text().with_variant(Text(collation="C"), "postgresql")
metadata = MetaData()


def _text(name: str, *, key: bool = False) -> Column[str]:
    return Column(name, TEXT, primary_key=key, nullable=not key)


def _whole(name: str, *, key: bool = False) -> Column[int]:
    return Column(name, BigInteger, primary_key=key, nullable=not key, autoincrement=False)


def _number(name: str) -> Column[float]:
    return Column(name, Double)


def _events(name: str, *columns: Column[str] | Column[int] | Column[float]) -> Table:
    """A table with a row for each event of a kind: which run, attempt and rank said it, at which step, and when."""
    run, attempt, rank = (
        Column("run", TEXT, nullable=False),
        Column("attempt", BigInteger, nullable=False),
        Column("rank", BigInteger, nullable=False),
    )
    return Table(name, metadata, run, attempt, rank, _whole("step"), _number("t"), *columns)


runs = Table(
    "runs",
    metadata,
    _text("run", key=True),
    _text("uid"),
    _text("job"),
    _text("state"),
    _whole("attempt"),
    _number("created"),
    _number("changed"),
    _number("seconds"),
    _text("target"),
    _text("plan"),
    _text("stage"),
    _text("parent"),
    _whole("fork_step"),
    _text("config_hash"),
    _text("code_hash"),
    _text("failure"),
    _text("reason"),
    _text("config"),
    _text("result"),
    _text("signal"),
    _whole("out_of_memory"),
    _text("instance"),
    _whole("preempted"),
    _number("joules"),
    _text("meter"),
    _whole("energy_estimated"),
    _text("remote"),
    _text("remote_revision"),
)
results = Table(
    "results",
    metadata,
    _text("run", key=True),
    _text("name", key=True),
    _number("value"),
    _text("not_finite"),
    _number("low"),
    _number("high"),
    _text("method"),
)
trackers = Table("trackers", metadata, _text("run", key=True), _text("name", key=True), _text("place"))
attempts = Table(
    "attempts",
    metadata,
    _text("run", key=True),
    _whole("attempt", key=True),
    _number("started"),
    _number("ended"),
    _whole("restored_step"),
    _text("environment"),
)
metrics = _events("metrics", _text("name"), _number("value"), _text("not_finite"))
rollouts = _events(
    "rollouts",
    _text("id"),
    _text("prompt"),
    _text("completion"),
    _number("reward"),
    _number("advantage"),
    _text("rewards"),
    _text("data"),
)
generations = _events(
    "generations",
    _whole("position"),
    _text("id"),
    _text("prompt"),
    _text("completion"),
    _text("reference"),
    _text("scores"),
    _text("data"),
)
samples = _events("samples", _text("id"), _text("prompt"), _text("completion"), _text("data"))
commands = _events(
    "commands",
    _text("id"),
    _text("verb"),
    _text("issuer"),
    _whole("at"),
    _text("outcome"),
    _text("args"),
    _text("data"),
)
checkpoints = _events("checkpoints", _text("path"), _number("metric"), _text("data"))
failures = _events("failures", _text("kind"), _text("error"), _text("reason"), _whole("at"), _text("data"))
energy = _events("energy", _text("meter"), _number("joules"), _number("seconds"), _text("data"))
artifacts = _events("artifacts", _text("name"), _text("path"), _text("sha256"), _whole("bytes"), _text("data"))

offsets = Table(
    "offsets", metadata, _text("run", key=True), _text("file", key=True), _whole("position"), _whole("stamp")
)
"""How far each file of a run has been taken in: bytes of journals, times of change of documents."""

owner = Table("store", metadata, _text("workspace", key=True))
"""One row: the workspace that this store is the index of."""

EVENT_TABLES = (metrics, rollouts, generations, samples, commands, checkpoints, failures, energy, artifacts)
NESTED = frozenset({"config", "result", "environment", "rewards", "scores", "args", "data"})
"""Columns whose text is JSON."""

CONTENT = (runs, results, trackers, attempts, *EVENT_TABLES)
"""What there is to read; the other tables are the store's own."""

for _table in EVENT_TABLES:
    Index(
        f"ix_{_table.name}_run",
        *([_table.c.run, _table.c.name] if _table is metrics else [_table.c.run]),
        _table.c.step,
    )
