"""The row of a run: what its documents say, which are replaced as a whole when they change."""

from __future__ import annotations

from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, delete, select

from clew.config.source import read_text
from clew.config.tree import Origin, plain
from clew.errors import ConfigError
from clew.runs import Run
from clew.runs.files import read_json
from clew.runs.following import FOLDER, tracker_places
from clew.store.database import insert
from clew.store.tables import results, runs, trackers
from clew.store.values import as_json, clean, number, real, text, whole

NAMES = ("run.json", "state.json", "result.json", "config.yaml", "pushed.json")
DAMAGED = "damaged"
_INODES = 2**63 - 1

Stamp = tuple[int, int]
Row = tuple[Any, ...]


def is_document(name: str) -> bool:
    """Say whether a file of a run is a document, which is replaced, rather than a journal, which grows."""
    return not name.endswith(".jsonl")


def stamps(run: Run) -> dict[str, Stamp]:
    """Return what changes when a document is replaced: its inode and its time, for each one that is there."""
    found: dict[str, Stamp] = {}
    for name in (*NAMES, *(path.relative_to(run.path).as_posix() for path in run.path.glob(f"{FOLDER}/*.json"))):
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
    wanted = {
        runs: [_run_row(run, result)],
        results: _result_rows(run.id, result),
        trackers: _tracker_rows(run, result),
    }
    changed = False
    for table, rows in wanted.items():
        query = select(table).where(table.c.run == run.id).order_by(*table.primary_key.columns)
        if [tuple(item) for item in connection.execute(query)] != rows:
            changed = True
            connection.execute(delete(table).where(table.c.run == run.id))
            insert(connection, table, rows)
    return changed


def _run_row(run: Run, result: dict[str, Any]) -> Row:
    info, state = _mapping(run, "run.json"), _mapping(run, "state.json")
    failure, energy = _part(result, "failure"), _part(result, "energy")
    remote = _mapping(run, "pushed.json") or _part(result, "remote")
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
        text(failure.get("signal")),
        whole(failure.get("out_of_memory")),
        text(result.get("instance")),
        whole(result.get("preempted")),
        real(energy.get("joules")),
        text(energy.get("meter")),
        whole(energy.get("estimated")),
        text(remote.get("url")),
        text(remote.get("revision")),
    )


def _result_rows(run: str, result: dict[str, Any]) -> list[Row]:
    intervals = _part(result, "intervals")
    return sorted(
        (
            (run, clean(name), *number(value), *_interval(intervals, name))
            for name, value in _part(result, "metrics").items()
        ),
        key=itemgetter(1),
    )


def _interval(intervals: dict[str, Any], name: str) -> Row:
    found = _part(intervals, name)
    return real(found.get("low")), real(found.get("high")), text(found.get("method"))


def _tracker_rows(run: Run, result: dict[str, Any]) -> list[Row]:
    """A tracker may learn its place after the worker's last word."""
    places = {**_part(result, "trackers"), **tracker_places(run.path)}
    return sorted((run.id, clean(name), text(place)) for name, place in places.items())


def _part(value: dict[str, Any], name: str) -> dict[str, Any]:
    """Return an object inside of a document; an empty one stands for what is missing or something else."""
    found = value.get(name)
    return found if isinstance(found, dict) else {}


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
