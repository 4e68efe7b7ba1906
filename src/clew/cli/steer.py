"""``clew stop`` and ``clew checkpoint``: ask something of a live run."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from clew.cli.finding import find, find_run, why_not_live, workspace_of
from clew.errors import UserError
from clew.runs import ACTIVE, Run, State, Workspace

if TYPE_CHECKING:
    from clew.cli.parser import Parser
    from clew.plans import Plan


def configure(parser: Parser, verb: str) -> None:
    """Add the argument of a verb."""
    target = "RUN|PIPELINE" if verb == "stop" else "RUN"
    parser.add_argument("name", metavar=target, help="a live one (see clew ls)")


def main(arguments: Namespace) -> int:
    """Put a command into an inbox, and say what will happen."""
    workspace = workspace_of(arguments)
    if arguments.verb == "checkpoint":
        run = find_run(workspace, arguments.name, purpose="has no checkpoints of its own")
        return _ask(run, "checkpoint", "it saves at its next step")
    found = find(workspace, arguments.name)
    if isinstance(found, Run):
        return _ask(found, "stop", f"it saves at its next step and ends; clew resume {found.id} goes on from there")
    return _stop_plan(found, workspace)


def _ask(run: Run, verb: str, outcome: str) -> int:
    if reason := why_not_live(run.state):
        hint = "" if run.state in (State.COMPLETED, State.UNKNOWN) else f"clew resume {run.id} goes on with it"
        raise UserError(f"there is nothing to {_DOING[verb]}: {reason}", where=run.id, hint=hint)
    run.inbox.send(verb)
    print(f"{run.id}: asked to {_DOING[verb]}; {outcome}")
    return 0


_DOING = {"stop": "stop", "checkpoint": "save"}


def _stop_plan(plan: Plan, workspace: Workspace) -> int:
    """Ask whoever carries the plan out; when nobody does, ask the stages that have outlived it."""
    from clew.plans import latest_runs

    live = {name: run for name, run in latest_runs(plan, workspace).items() if run.state in ACTIVE}
    reason = why_not_live(plan.state)
    if reason and not live:
        hint = "" if plan.state is State.COMPLETED else f"clew resume {plan.id} goes on with it"
        raise UserError(f"there is nothing to stop: {reason}", where=plan.id, hint=hint)
    if not reason:
        plan.inbox.send("stop")
    else:
        for run in live.values():
            run.inbox.send("stop")
    stages = f" ({', '.join(live)})" if live else ""
    print(
        f"{plan.id}: asked to stop; what runs{stages} saves at its next step and ends, no other stage starts; "
        f"clew resume {plan.id} goes on from there"
    )
    return 0
