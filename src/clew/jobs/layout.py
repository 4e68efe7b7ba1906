"""On how many processes, and on which mesh, a run goes on: what was chosen when it was resumed, over its config.

The layout counts for no result, so a run may change it between any two attempts. Its config stays as it was; the choice
lies beside it in ``layout.json``, and every attempt says in the journal on what it ran.
"""

from __future__ import annotations

import json
import time
from typing import Any

from clew.errors import UserError
from clew.runs import Run
from clew.runs.files import read_json, write_json
from clew.runs.states import OWNED

FILE = "layout.json"


def layout_of(run: Run) -> dict[str, Any]:
    """Return the config keys that were chosen anew, with their values; empty when nothing was."""
    try:
        found: dict[str, Any] = read_json(run.path / FILE)
    except FileNotFoundError:
        return {}
    return found


def overrides(layout: dict[str, Any]) -> list[str]:
    """Return a layout as words of a command line."""
    return [f"{key}={json.dumps(value)}" for key, value in layout.items()]


def choose(run: Run, *, ranks: int | None = None, mesh: str = "") -> None:
    """Let a run go on in another layout from its next attempt on.

    Args:
        run: A run that nobody works on.
        ranks: How many processes; None leaves it.
        mesh: A preset; empty leaves it. The sizes of the mesh are then those of the preset.

    Raises:
        UserError: If somebody works on the run, or the run cannot be laid out so.
    """
    from clew.jobs.loading import load_job

    chosen: dict[str, Any] = {} if ranks is None else {"runtime.ranks": ranks}
    if mesh:
        chosen |= {"mesh.preset": mesh, "mesh.data": None, "mesh.fsdp": None, "mesh.tensor": None}
    layout = {**layout_of(run), **chosen}
    loaded = load_job(run.config_path, overrides(layout))
    loaded.job.check(loaded.config, run.path.parent)
    with run.states.locked() as now:
        if now.observed(time.time()) in OWNED:
            raise UserError(
                "a run can change its layout only between two attempts",
                where=run.id,
                hint=f"clew stop {run.id}, then resume it so",
            )
        write_json(run.path / FILE, layout)
