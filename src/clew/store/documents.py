"""The row of a run: what its documents say, which are replaced as a whole when they change."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, delete, select

from clew.config.source import read_text
from clew.config.tree import Origin, plain
from clew.errors import ConfigError
from clew.runs import Run
from clew.runs.files import read_json
from clew.store.database import insert
from clew.store.tables import results, runs
from clew.store.values import as_json, clean, number, real, text, whole

NAMES = ("run.json", "state.json", "result.json", "config.yaml")
DAMAGED = "damaged"
_INODES = 2**63 - 1

Stamp = tuple[int, int]
Row = tuple[Any, ...]


def stamps(run: Run) -> dict[str, Stamp]:
    """Return what changes when a document is replaced: its inode and its time, for each one that is there."""
    found: dict[str, Stamp] = {}
    for name in NAMES:
        try:
            status = (run.path / name).stat()
        except OSError:
            continue
        found[name] = (status.st_ino & _INODES, status.st_mtime_ns)
    return found


def uid(run: Run) -> str | None:
    """Return the identity of a run, which tells it from a later one of the same name; None when it cannot be read."""
    return text(_mapping(run, "run.json").get("uid"))


def update(connection: Connection, run: Run) -> bool:
    """Write the row of a run and its results anew if they have changed, and say whether they have."""
    result = _mapping(run, "result.json")
    row, scores = _run_row(run, result), _result_rows(run.id, result)
    old = connection.execute(select(runs).where(runs.c.run == run.id)).first()
    same = connection.execute(select(results).where(results.c.run == run.id).order_by(results.c.name)).all()
    if old is not None and tuple(old) == row and [tuple(item) for item in same] == scores:
        return False
    for table in (runs, results):
        connection.execute(delete(table).where(table.c.run == run.id))
    insert(connection, runs, [row])
    insert(connection, results, scores)
    return True


def _run_row(run: Run, result: dict[str, Any]) -> Row:
    info, state = _mapping(run, "run.json"), _mapping(run, "state.json")
    failure = result.get("failure")
    failure = failure if isinstance(failure, dict) else {}
    return (
        run.id,
        text(info.get("uid")),
        text(info.get("job")),
        run.state.value if info else DAMAGED,
        whole(state.get("attempt")),
        real(info.get("created")),
        real(state.get("changed")),
        real(result.get("seconds")),
        *(text(info.get(name)) for name in ("target", "plan", "stage", "parent")),
        whole(info.get("fork_step")),
        text(info.get("config_hash")),
        text(info.get("code_hash")),
        text(failure.get("kind")),
        text(failure.get("reason") or state.get("reason") or None),
        _config(run),
        as_json(result or None),
    )


def _result_rows(run: str, result: dict[str, Any]) -> list[Row]:
    metrics = result.get("metrics")
    values = metrics if isinstance(metrics, dict) else {}
    return sorted((run, clean(name), *number(value)) for name, value in values.items())


def _config(run: Run) -> str | None:
    """The resolved config as JSON, which SQL can look into."""
    try:
        said = run.config_path.read_text(encoding="utf-8")
        return as_json(plain(read_text(said, Origin("file", run.config_path.name))))
    except (OSError, ValueError, ConfigError):
        return None


def _mapping(run: Run, name: str) -> dict[str, Any]:
    """Read a document; an empty one stands for what is missing or damaged."""
    try:
        value = read_json(run.path / name)
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
