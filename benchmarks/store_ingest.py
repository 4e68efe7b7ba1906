"""How fast journals go into the store: metric rows a second, against the 50,000 that are promised for SQLite.

    python benchmarks/store_ingest.py [--points 1000000] [--store URL] [--json]

Each journal is ingested into an empty store; the rate counts everything from the files to the last commit. The
yardstick of the same run is the standard library alone: parse the lines, insert the same rows with ``executemany``.
Where other programs hold the processor, the rate by processor time is the one to look at.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import tempfile
import time
from pathlib import Path

from clew.runs import RunInfo, Workspace, create_run
from clew.store import open_store
from clew.store.ingest import rebuild, status, sync

PROMISED = 50_000
SHAPES = (1, 10)
"""Metrics in an event: the worst case, and a usual one."""


def main() -> None:
    """Print a line for each shape of journal."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=500_000, help="metric rows of each journal")
    parser.add_argument("--store", metavar="URL", help="another database than a new SQLite file; its index is REPLACED")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    arguments = parser.parse_args()
    for width in SHAPES:
        found = measure(arguments.points, width, arguments.store)
        if arguments.json:
            print(json.dumps(found))
        else:
            print(
                f"{width:2} metrics an event: {found['rows_per_second']:>9,.0f} rows/s "
                f"({found['rows_per_processor_second']:,.0f} a second of processor time), "
                f"{found['ratio_to_promise']:.1f} x the promise, {found['ratio_to_plain']:.2f} x plain sqlite3"
            )


def measure(points: int, width: int, url: str | None) -> dict[str, float]:
    """Ingest one journal and return its figures."""
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(folder)
        store = open_store(workspace, url)
        rebuild(store, workspace, take_over=True)  # empty, and everything is imported
        journal = write_run(workspace, points // width, width)
        began, worked = time.perf_counter(), time.process_time()
        sync(store, workspace)
        seconds, worked = time.perf_counter() - began, time.process_time() - worked
        taken = status(store, workspace).rows["metrics"]
        if taken != points // width * width:
            raise SystemExit(f"{taken} rows were taken in, not {points}: this measures nothing")
        began = time.perf_counter()
        sync(store, workspace)
        nothing_new = time.perf_counter() - began
        plain = plain_seconds(journal, Path(folder) / "plain.sqlite")
    rows = points // width * width
    return {
        "metrics_per_event": width,
        "rows": rows,
        "rows_per_second": rows / seconds,
        "rows_per_processor_second": rows / worked,
        "promised": PROMISED,
        "ratio_to_promise": rows / seconds / PROMISED,
        "ratio_to_plain": plain / seconds,
        "seconds_when_nothing_is_new": nothing_new,
    }


def write_run(workspace: Workspace, steps: int, width: int) -> Path:
    """Make a run with a journal of so many steps."""
    workspace.runs.mkdir(parents=True)
    run = create_run(workspace.runs, RunInfo("bench", "eval"), "job: eval\n", {})
    path = run.path / "journal" / "1-0.jsonl"
    with path.open("w", encoding="utf-8") as stream:
        stream.write('{"t": 0.0, "kind": "restore", "step": 0}\n')
        for step in range(1, steps + 1):
            values = {f"metric_{number}": step / (number + 1) for number in range(width)}
            event = {"t": 1.7e9 + step, "kind": "metric", "step": step, "values": values}
            stream.write(json.dumps(event) + "\n")
    return path


def plain_seconds(journal: Path, file: Path) -> float:
    """Do the same with the standard library alone: no supersession, no offsets, no checks."""
    began = time.perf_counter()
    connection = sqlite3.connect(file)
    connection.execute("pragma journal_mode = wal")
    connection.execute("pragma synchronous = normal")
    connection.execute("create table metrics (run text, attempt, rank, step, t, name text, value, not_finite text)")
    connection.execute("create index ix on metrics (run, name, step)")
    with connection, journal.open("rb") as stream:
        events = (json.loads(line) for line in stream)
        connection.executemany(
            "insert into metrics values (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                ("bench", 1, 0, event["step"], event["t"], name, value, None)
                for event in events
                if event["kind"] == "metric"
                for name, value in event["values"].items()
            ),
        )
    connection.close()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
