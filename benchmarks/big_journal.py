"""``clew show`` and ``clew report`` on runs of a million metric points: seconds, and the most memory that was used.

Memory is bounded when a journal a thousand times as long needs hardly more: what is left is that of matplotlib.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import Figure

from clew.runs import RunInfo, Workspace, create_run

SHAPES = {"100,000 steps of 10 metrics": (100_000, 10), "1,000,000 steps of 1 metric": (1_000_000, 1)}
PROMISED_SECONDS = {"show": 1.0, "report": 10.0}
MEBIBYTE = 1 << 20


def main() -> None:
    """Print seconds and growth of memory, for each shape of journal."""
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(folder)
        workspace.runs.mkdir()
        write_run(workspace, "small", 1_000, 1)
        base = {verb: measure(workspace, verb, "small")[1] for verb in PROMISED_SECONDS}
        for shape, (steps, width) in SHAPES.items():
            name = f"run-{steps}"
            write_run(workspace, name, steps, width)
            for verb, promised in PROMISED_SECONDS.items():
                seconds, peak = measure(workspace, verb, name)
                Figure(f"clew {verb} on {shape}", seconds, "s", promised).print()
                what = f"the same, peak memory ({peak / MEBIBYTE:.0f} MiB) against that of 1,000 points"
                Figure(what, peak / base[verb], "x", 1.2).print()


def write_run(workspace: Workspace, name: str, steps: int, width: int) -> None:
    """Make a run with a journal of so many steps."""
    run = create_run(workspace.runs, RunInfo(name, "sft"), "job: sft\n", {})
    names = ["loss", "val_loss", *(f"metric_{number}" for number in range(width))][:width]
    with (run.path / "journal" / "1-0.jsonl").open("w", encoding="utf-8") as stream:
        stream.write('{"t": 1.7e9, "kind": "restore", "step": 0}\n')
        for step in range(1, steps + 1):
            values = {name: number + 1 / step for number, name in enumerate(names)}
            stream.write(json.dumps({"t": 1.7e9 + step, "kind": "metric", "step": step, "values": values}) + "\n")


def measure(workspace: Workspace, verb: str, name: str) -> tuple[float, int]:
    """Run a verb in a process of its own; return its seconds and its peak memory in bytes."""
    command = [str(Path(sys.executable).with_name("clew")), "--workspace", str(workspace.root), verb, name]
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"clew {verb} failed: this measures nothing")
    scale = 1 if sys.platform == "darwin" else 1024
    return time.perf_counter() - began, usage.ru_maxrss * scale


if __name__ == "__main__":
    main()
