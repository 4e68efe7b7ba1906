"""``clew recover``: go on with every run and pipeline that was cut off."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from typing import TYPE_CHECKING

from clew.checkpoints import CheckpointStore
from clew.cli.finding import workspace_of
from clew.errors import ClewError
from clew.logs.logger import Logger
from clew.runs import Run, State, Workspace

if TYPE_CHECKING:
    from clew.cli.parser import Parser
    from clew.plans import Plan


def configure(parser: Parser, verb: str) -> None:
    """Add the argument."""
    parser.add_argument("--yes", action="store_true", help="do it, in the background; without, it is only said")


def main(arguments: Namespace) -> int:
    """Say what would be gone on with, or go on with it."""
    workspace = workspace_of(arguments)
    plans = _interrupted_plans(workspace)
    runs = [run for run in workspace.list_runs() if run.state is State.INTERRUPTED]
    alone = [run for run in runs if _plan_of(run) not in {plan.id for plan in plans}]
    for run in (run for run in workspace.list_runs() if run.state is State.UNKNOWN):
        gone = f"clew resume {run.id} --take-over takes it from a machine that is gone for good"
        print(f"{run.id}: was started on another machine, and nothing answers from there; it is left alone; {gone}")
    if not plans and not alone:
        print(f"nothing was interrupted in {workspace.root}")
        return 0
    items: list[Run | Plan] = [*plans, *alone]
    failed = [_recover(item, workspace, do=arguments.yes) for item in items]
    if not arguments.yes:
        print("--yes goes on with them, in the background")
    return 1 if any(failed) else 0


def _interrupted_plans(workspace: Workspace) -> list[Plan]:
    found = sorted(path.parent for path in workspace.plans.glob("*/plan.json"))
    if not found:
        return []
    from clew.plans import Plan  # needs the config machinery, which runs do without

    return [plan for plan in map(Plan, found) if plan.state is State.INTERRUPTED]


def _plan_of(run: Run) -> str | None:
    try:
        return run.info.plan
    except ClewError:
        return None


def _recover(item: Run | Plan, workspace: Workspace, *, do: bool) -> bool:
    """Go on with one of them, or say how; returns whether that failed. One that cannot be is no reason for others."""
    print(f"{item.id}: {_from_run(item) if isinstance(item, Run) else 'keeps its finished stages, and goes on'}")
    if not do:
        return False
    from clew.cli.detach import detach_plan, detach_run

    try:
        if isinstance(item, Run):
            detach_run(item)
        else:
            detach_plan(item, workspace)
    except ClewError as error:
        Logger("clew.cli").error(error)
        return True
    return False


def _from_run(run: Run) -> str:
    good, bad = CheckpointStore(run.checkpoints).newest_good()
    passed = "".join(f"; step {step} cannot be used: {problem}" for step, problem in bad.items())
    if good:
        return f"goes on at step {good.step}{passed}{_copies(run, bad)}"
    from clew.remote.mirror import fetches_from

    if (place := fetches_from(run)) and (bad or any(run.events("checkpoint"))):
        return f"goes on at the newest checkpoint that {place} has{passed}"
    return f"begins anew, it has no checkpoint{passed}{_copies(run, bad)}"


def _copies(run: Run, bad: Mapping[int, str]) -> str:
    """Where checkpoints that cannot be used may be fetched from first."""
    if not bad:
        return ""
    from clew.remote.mirror import mirror_of

    place = mirror_of(run)
    return f"; clew checkpoints restore {run.id} fetches what {place} has" if place else ""
