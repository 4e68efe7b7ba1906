"""From journal events to rows: which kind goes into which table, and which field into which column."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Table

from clew.runs import Event
from clew.store import tables
from clew.store.values import as_json, clean, number, real, text, whole

Row = tuple[Any, ...]
_COMMON = ("t", "kind", "step", "attempt", "rank")


@dataclass(frozen=True)
class Shape:
    """Where the fields of a kind go; those that are not named are kept as JSON in ``data``, so nothing is lost."""

    table: Table
    fields: dict[str, Callable[[Any], Any]]
    """Field to converter, in the order of the columns between ``t`` and ``data``."""
    known: frozenset[str]

    def row(self, run: str, attempt: int, rank: int, event: Event) -> Row:
        """Return the row of an event."""
        values = [convert(event.get(name)) for name, convert in self.fields.items()]
        rest = {name: value for name, value in event.items() if name not in self.known}
        prefix = (run, attempt, rank, whole(event.get("step")), real(event.get("t")))
        return (*prefix, *values, as_json(rest) if rest else None)


def _shape(table: Table, **fields: Callable[[Any], Any]) -> Shape:
    return Shape(table, fields, frozenset({*_COMMON, *fields}))


SHAPES = {
    "rollout": _shape(
        tables.rollouts, id=text, prompt=text, completion=text, reward=real, advantage=real, rewards=as_json
    ),
    "generation": _shape(
        tables.generations, index=whole, id=text, prompt=text, completion=text, reference=text, metrics=as_json
    ),
    "sample": _shape(tables.samples, id=text, prompt=text, completion=text),
    "command": _shape(tables.commands, id=text, verb=text, issuer=text, at=whole, outcome=text, args=as_json),
    "checkpoint": _shape(tables.checkpoints, path=text, metric=real),
    "failure": _shape(tables.failures, kind=text, error=text, reason=text, at=whole),
    "checkpoint_bad": _shape(tables.failures, kind=text, error=text, problem=text, at=whole),
    "checkpoint_failed": _shape(tables.failures, kind=text, error=text, reason=text, at=whole),
    "disk_full": _shape(tables.failures, kind=text, error=text, reason=text, at=whole),
    "energy": _shape(tables.energy, meter=text, joules=real, seconds=real),
    "artifact": _shape(tables.artifacts, name=text, path=text, sha256=text, bytes=whole),
}


def rows_of(run: str, attempt: int, rank: int, event: Event) -> Iterator[tuple[Table, Row]]:
    """Yield the rows that an event becomes, with their tables; a kind that has no table becomes none."""
    kind = event.get("kind")
    if kind == "metric":
        values = event.get("values")
        step, t = whole(event.get("step")), real(event.get("t"))
        for name, value in values.items() if isinstance(values, dict) else ():
            yield tables.metrics, (run, attempt, rank, step, t, clean(name), *number(value))
    elif isinstance(kind, str) and (shape := SHAPES.get(kind)) is not None:
        yield shape.table, shape.row(run, attempt, rank, event)
