"""From the words of the command line to runs and pipelines."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from clew.errors import UserError, did_you_mean
from clew.runs import Run, Workspace

if TYPE_CHECKING:
    from clew.plans import Plan


def workspace_of(arguments: Namespace) -> Workspace:
    """Return the workspace that the command line names."""
    return Workspace(arguments.workspace)


def find(workspace: Workspace, name: str) -> Run | Plan:
    """Return the run or the pipeline of that name.

    Raises:
        UserError: If there is none; with the nearest name.
    """
    if name and (workspace.plans / name / "plan.json").is_file():
        from clew.plans import Plan  # needs the config machinery, which runs do without

        return Plan(workspace.plans / name)
    runs = [path.parent.name for path in workspace.runs.glob("*/run.json")]
    plans = [path.parent.name for path in workspace.plans.glob("*/plan.json")]
    if name in runs or "/" in name:
        return workspace.find_run(name)
    guess = did_you_mean(name, [*runs, *plans])
    raise UserError(
        f"there is no run or pipeline {name!r}",
        where=str(workspace.root),
        hint=guess if guess.startswith("did you mean") else "clew ls shows what there is",
    )


def find_run(workspace: Workspace, name: str, *, purpose: str) -> Run:
    """Return the run of that name, where a pipeline will not do.

    Args:
        workspace: Where to look.
        name: What was asked for.
        purpose: What a pipeline does not have or take, such as ``has no log of its own``.

    Raises:
        UserError: If there is none, or it is a pipeline; with the names of its stages' runs.
    """
    found = find(workspace, name)
    if isinstance(found, Run):
        return found
    stages = sorted(path.parent.name for path in workspace.runs.glob(f"{name}.*/run.json"))
    raise UserError(
        f"a pipeline {purpose}",
        where=name,
        hint=f"name the run of a stage: {', '.join(stages)}" if stages else "none of its stages has started",
    )
