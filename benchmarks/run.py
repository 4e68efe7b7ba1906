"""Run every benchmark and write ``docs/performance.md``: ``python benchmarks/run.py``, or ``make bench``.

With names, ``python benchmarks/run.py fork.py data.py``, only these are run, and the other rows of the page stay.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "performance.md"
SCRIPTS = (
    "startup.py",
    "first_step.py",
    "session_log.py",
    "live_layer.py",
    "command_latency.py",
    "fork.py",
    "trackers.py",
    "native_loop.py",
    "ranks.py",
    "data.py",
    "snapshot.py",
    "checkpoints.py",
    "resharding.py",
    "eval_batches.py",
    "inspection.py",
    "lightning_fit.py",
    "merge_memory.py",
    "big_journal.py",
    "postgres_ingest.py",
)
INTRODUCTION = """# Performance

Written by `make bench`. Ratios compare two things in one run, turn by turn, on one thread; medians of several rounds
are shown. They hold for the machine below and are no promise for another one. A dash stands where nothing was promised.
Nothing here ran on a GPU.

"""


INGEST = "store_ingest.py"
HEAD = ["| what | measured | promised | kept |", "|---|---:|---:|---|"]


def main(names: list[str]) -> None:
    """Run scripts in their order, all without names, and write the page."""
    figures = []
    for name in names or [*SCRIPTS, INGEST]:
        figures += [_ingest(one) for one in _run(INGEST, "--json")] if name == INGEST else _run(name)
    rows = [_row(figure) for figure in figures]
    table = [*HEAD, *(_renewed(_rows(), rows) if names else rows)]
    PAGE.write_text(INTRODUCTION + "\n".join(table) + f"\n\n{_machine()}\n", encoding="utf-8")
    print("\n".join(table))


def _rows() -> list[str]:
    """The rows that the page has."""
    return [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")][1:]


def _renewed(old: list[str], new: list[str]) -> list[str]:
    """Put new rows in the place of those of the same words, the n-th of them for the n-th, and others at the end."""
    rows = list(old)
    taken: set[int] = set()
    for row in new:
        words = row.split(" | ")[0]
        place = next((n for n, one in enumerate(rows) if n not in taken and one.split(" | ")[0] == words), None)
        if place is None:
            place = len(rows)
            rows.append(row)
        rows[place] = row
        taken.add(place)
    return rows


def _row(figure: dict[str, object]) -> str:
    measured = f"| {figure['what']} | {figure['value']:,.3g} {figure['unit']} |"
    if figure["promise"] is None:
        return f"{measured} – | – |"
    bound = "≥" if figure["at_least"] else "≤"
    kept = "yes" if figure["holds"] else "**no**"
    return f"{measured} {bound} {figure['promise']:,g} {figure['unit']} | {kept} |"


def _run(name: str, *words: str) -> list[dict[str, object]]:
    print(f"{name} ...", flush=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    done = subprocess.run(
        [sys.executable, HERE / name, *words], check=True, stdout=subprocess.PIPE, text=True, env=environment
    )
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def _ingest(found: dict[str, object]) -> dict[str, object]:
    rate, promise = float(str(found["rows_per_second"])), float(str(found["promised"]))
    return {
        "what": f"store ingest into SQLite, {found['metrics_per_event']} metrics an event",
        "value": rate,
        "unit": "rows/s",
        "promise": promise,
        "at_least": True,
        "holds": rate >= promise,
    }


def _machine() -> str:
    from clew.runs.environment import environment

    found = environment()
    return (
        f"{found['cpus']} CPUs ({found['machine']}), Python {found['python']}, PyTorch {found['libraries']['torch']}."
    )


if __name__ == "__main__":
    main(sys.argv[1:])
