"""What people wait for: ``clew --help`` against the bare interpreter, and ``clew ls`` on ten thousand runs."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from common import Figure, alternate

from clew.runs import RunInfo, Workspace, create_run

NUM_RUNS = 10_000


def main() -> None:
    """Print both figures."""
    clew = Path(sys.executable).with_name("clew")
    bare, help_screen = alternate(
        15,
        lambda: subprocess.run([sys.executable, "-c", "pass"], check=True),
        lambda: subprocess.run([clew, "--help"], check=True, stdout=subprocess.DEVNULL),
    )
    Figure("clew --help, against python -c pass", help_screen / bare, "x", 3.0, at_least=False).print()
    with tempfile.TemporaryDirectory() as folder:
        seconds = _list_many(Path(folder), clew)
    Figure(f"clew ls on {NUM_RUNS:,} runs", seconds, "s", 1.0, at_least=False).print()


def _list_many(folder: Path, clew: Path) -> float:
    runs = Workspace(folder).runs
    first = create_run(runs, RunInfo("run-0", "sft"), "job: sft\n", {})
    text = (first.path / "run.json").read_text(encoding="utf-8")
    for number in range(1, NUM_RUNS):
        copy = runs / f"run-{number}"
        shutil.copytree(first.path, copy)
        (copy / "run.json").write_text(text.replace('"run-0"', f'"run-{number}"'), encoding="utf-8")
    command = [str(clew), "--workspace", str(folder), "ls"]
    (seconds,) = alternate(5, lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL))
    return seconds


if __name__ == "__main__":
    main()
