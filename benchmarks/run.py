"""Run every benchmark and write ``docs/performance.md``: ``python benchmarks/run.py``, or ``make bench``."""

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
    "eval_batches.py",
    "inspection.py",
    "merge_memory.py",
    "big_journal.py",
    "postgres_ingest.py",
)
INTRODUCTION = """# Performance

Written by `make bench`. Ratios compare two things in one run, turn by turn, on one thread; medians of several rounds
are shown. They hold for the machine below and are no promise for another one. A dash stands where nothing was promised.
Nothing here ran on a GPU.

"""


def main() -> None:
    """Run the scripts in their order, and write the page."""
    figures = [figure for name in SCRIPTS for figure in _run(name)]
    figures += [_ingest(found) for found in _run("store_ingest.py", "--json")]
    lines = ["| what | measured | promised | kept |", "|---|---:|---:|---|"]
    for figure in figures:
        lines.append(_row(figure))
    PAGE.write_text(INTRODUCTION + "\n".join(lines) + f"\n\n{_machine()}\n", encoding="utf-8")
    print("\n".join(lines))


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
    main()
