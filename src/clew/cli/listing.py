"""``clew ls``: runs and pipelines, a line each."""

from __future__ import annotations

import json
import time
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clew.cli.finding import workspace_of
from clew.cli.latest import latest
from clew.cli.text import age, headline, print_table
from clew.errors import UserError
from clew.runs import Run, StateFile, Workspace
from clew.runs.files import read_json

if TYPE_CHECKING:
    from clew.cli.parser import Parser

_DAMAGE = (UserError, OSError, ValueError, KeyError, TypeError)


def configure(parser: Parser, verb: str) -> None:
    """Add the arguments."""
    parser.add_argument("--json", action="store_true", help="for programs: a list of objects")


def main(arguments: Namespace) -> int:
    """Print what is in the workspace, the oldest first."""
    workspace = workspace_of(arguments)
    entries = sorted([*_plans(workspace), *map(_entry, workspace.list_runs())], key=lambda entry: entry["created"])
    if arguments.json:
        print(json.dumps(entries, indent=2))
    elif not entries:
        print(f"no runs in {workspace.root}; clew run FILE starts one")
    else:
        columns = ("id", "job", "state", "step", "age", "metric")
        print_table(columns, (_row(entry) for entry in entries))
    return 0


def _entry(run: Run) -> dict[str, Any]:
    """What is known of a run; a damaged one is listed as such."""
    try:
        info = run.info
        now = latest(run)
    except _DAMAGE:
        created = (run.path / "run.json").stat().st_mtime
        return {"id": run.id, "job": "?", "state": "damaged", "step": None, "created": created, "metrics": {}}
    return {
        "id": run.id,
        "job": info.job,
        "state": run.state.value,
        "step": now.step,
        "total": now.total,
        "created": info.created,
        "metrics": now.metrics,
        "pipeline": info.plan,
        "stage": info.stage,
        "replay_of": info.replay_of,
    }


def _plans(workspace: Workspace) -> list[dict[str, Any]]:
    found = [path.parent for path in workspace.plans.glob("*/plan.json")]
    return [_plan_entry(folder) for folder in found]


def _plan_entry(folder: Path) -> dict[str, Any]:
    try:
        state = StateFile(folder).read().observed(time.time()).value
        created = read_json(folder / "plan.json")["created"]
    except _DAMAGE:
        state, created = "damaged", (folder / "plan.json").stat().st_mtime
    return {"id": folder.name, "job": "pipeline", "state": state, "step": None, "created": created, "metrics": {}}


def _row(entry: dict[str, Any]) -> tuple[str, ...]:
    total = f"/{entry['total']}" if entry.get("total") else ""
    step = "" if entry["step"] is None else f"{entry['step']}{total}"
    # A job in a file is known by its file's name; its whole path would fill the table.
    copied = f" (replay of {entry['replay_of']})" if entry.get("replay_of") else ""
    job = Path(entry["job"]).name + copied
    return (entry["id"], job, entry["state"], step, age(time.time() - entry["created"]), headline(entry["metrics"]))
