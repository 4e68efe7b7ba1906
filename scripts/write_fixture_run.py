"""Keep a small run of this version in ``tests/fixtures/runs/VERSION``: ``python scripts/write_fixture_run.py``.

Once for each release. Later versions must open it, verify its checkpoints and go on with it; what a release has written
is never written anew.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

import clew
from clew.jobs import create_job_run, load_job
from clew.runs import Command, Run, State, Workspace
from clew.targets import LocalTarget
from clew.targets.watching import Silent, follow

PLACE = Path(__file__).parents[1] / "tests" / "fixtures" / "runs"
CONFIG = {
    "job": "pretrain",
    "name": "kept",
    "task": {"type": "arithmetic", "max_operand": 9, "train_size": 40, "validation_size": 4, "test_size": 4},
    "model": {"depth": 1, "width": 8, "heads": 4, "kv_heads": 2, "mlp_width": 8},
    "data": {"seq_len": 16},
    "training": {"steps": 12, "batch_size": 2, "log_every": 1, "validate_every": 4},
    "checkpoint": {"every": 4},
    "runtime": {"device": "cpu", "threads": 1},
}
STOPS_AT = 8


def main() -> None:
    """Make a run, let it be stopped half-way, and keep its directory."""
    target = PLACE / clew.__version__
    if target.exists():
        sys.exit(f"{target} is there; what a release has written stays as it is")
    with tempfile.TemporaryDirectory() as folder:
        run = create_job_run(Workspace(Path(folder)), load_job(CONFIG))
        run.inbox.post(Command("stop", at=STOPS_AT, issuer="fixture"))
        state = follow(LocalTarget().launch(run), Silent())
        assert state is State.STOPPED, state
        _forget_machine(run)
        shutil.copytree(run.path, target, ignore=shutil.ignore_patterns("logs", ".*"))


def _forget_machine(run: Run) -> None:
    """Take out what says where it was made."""
    path = run.path / "result.json"
    result = {**json.loads(path.read_text()), "directory": "kept", "environment": {}}
    path.write_text(json.dumps(result, indent=2) + "\n")
    for path in run.path.glob("journal/*.jsonl"):
        events = [json.loads(line) for line in path.read_text().splitlines()]
        kept = [{**event, "environment": {}} if "environment" in event else event for event in events]
        path.write_text("".join(json.dumps(event) + "\n" for event in kept))


if __name__ == "__main__":
    main()
