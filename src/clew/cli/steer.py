"""``clew pause``, ``set``, ``stop`` and the others: ask something of a live run."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING, Any

from clew.cli.finding import find, find_run, workspace_of
from clew.errors import UserError
from clew.inspection.recipes import request
from clew.runs import ACTIVE, Run, State, Workspace
from clew.runs.states import why_not_live
from clew.session.live import LiveRun, When

if TYPE_CHECKING:
    from clew.cli.parser import Parser
    from clew.plans import Plan

# What is said when a command has been sent: what was asked for, and what will come of it, at once in a paused run.
_ASKED = {
    "pause": ("pause", "it saves {when} and waits; clew resume {run} lets it go on"),
    "step": ("step", "it makes them and pauses again"),
    "stop": ("stop", "it saves {when} and ends; clew resume {run} goes on from there"),
    "abort": ("abort", "it ends {when}; clew resume {run} goes on from the newest checkpoint"),
    "checkpoint": ("save", "it saves {when}"),
    "set": ("change", "it holds from its next step on"),
    "note": ("note", "it is written into the journal {when}"),
    "evaluate": ("evaluate", "it does so {when}, and what comes of it stands in the journal"),
    "reset": ("go back", "it takes the weights {when}, and goes on with the data that comes next"),
    "select": ("choose its data", "it trains on that from its next batch on"),
}
_NOT_A_RUN = {"checkpoint": "has no checkpoints of its own"}


def configure(parser: Parser, verb: str) -> None:
    """Add the arguments of a verb."""
    target = "RUN|PIPELINE" if verb == "stop" else "RUN"
    parser.add_argument("name", metavar=target, help="a live one (see clew ls)")
    if verb == "pause":
        how = parser.add_mutually_exclusive_group()
        how.add_argument("--save", dest="save", action="store_true", default=True, help="save first (the default)")
        how.add_argument("--latest", dest="save", action="store_false", help="the newest checkpoint will do")
    elif verb == "step":
        parser.add_argument("steps", metavar="N", type=int, nargs="?", default=1, help="how many (default: 1)")
    elif verb == "checkpoint":
        parser.add_argument("--tag", default="", help="keep it for good under this name, as run:RUN@TAG")
    elif verb == "set":
        parser.add_argument("values", metavar="key=value", nargs="+", help="such as lr=1e-4")
    elif verb == "reset":
        parser.add_argument("--to", metavar="STEP", help="the weights of this checkpoint: a step, a tag, best or last")
        parser.add_argument("--optimizer", action="store_true", help="let the optimizer begin anew")
    elif verb == "select":
        parser.add_argument("recipe", metavar="RECIPE", nargs="+", help="such as hardest 15%%; all is everything again")
        parser.add_argument("--order", default="", help="shuffled, given, easy-first or hard-first")
    elif verb == "note":
        parser.add_argument("text", metavar="TEXT", nargs="+", help="what to write")
    _configure_conditions(parser)


def _configure_conditions(parser: Parser) -> None:
    parser.add_argument("--at", type=int, metavar="STEP", help="carry it out after this step, not at the next one")
    parser.add_argument("--before", type=int, metavar="STEP", help="drop it if it comes as late as this step")
    parser.add_argument("--if-config", default="", metavar="HASH", help="only if the run's config hash begins so")
    parser.add_argument("--wait", action="store_true", help="return when the outcome is known; fail if it is rejected")
    parser.add_argument("--deadline", type=float, metavar="SECONDS", help="wait so long at the most")


def main(arguments: Namespace) -> int:
    """Put a command into an inbox, and say what will happen or, with ``--wait``, what has happened."""
    workspace = workspace_of(arguments)
    if arguments.verb == "stop":
        found = find(workspace, arguments.name)
        if not isinstance(found, Run):
            return _stop_plan(found, workspace, arguments)
    run = find_run(workspace, arguments.name, purpose=_NOT_A_RUN.get(arguments.verb, "has no steps of its own"))
    when = When(arguments.at, arguments.before, arguments.if_config)
    wait: bool | float = arguments.wait if arguments.deadline is None else arguments.deadline
    sent = LiveRun(run).send(arguments.verb, _given(arguments), when, wait)
    if sent.step is not None:
        print(f"{run.id}: {sent.verb} applied at step {sent.step}{_until(arguments, sent.step)}")
        for name, value in sent.result.get("metrics", {}).items():
            print(f"  {name} {value:.6g}")
        return 0
    asked, outcome = _ASKED[sent.verb]
    print(f"{run.id}: asked to {asked}; {outcome.format(run=run.id, when=_when(run, when.at))}\n  command {sent.id}")
    return 0


def _when(run: Run, at: int | None) -> str:
    """When a command will be carried out, in words."""
    if at is not None:
        return f"after step {at}"
    return "at once" if run.state is State.PAUSED else "at its next step"


def _until(arguments: Namespace, step: int) -> str:
    """Steps have only begun when their command is carried out."""
    return f"; it pauses again at step {step + arguments.steps}" if arguments.verb == "step" else ""


def _given(arguments: Namespace) -> dict[str, Any]:
    """Return the arguments of a command, as far as they were given."""
    match arguments.verb:
        case "pause":
            return {} if arguments.save else {"save": False}
        case "step":
            return {"steps": arguments.steps}
        case "checkpoint":
            return {"tag": arguments.tag} if arguments.tag else {}
        case "set":
            return dict(map(_pair, arguments.values))
        case "note":
            return {"text": " ".join(arguments.text)}
        case "reset":
            to = {} if arguments.to is None else {"to": arguments.to}
            return {**to, **({"optimizer": True} if arguments.optimizer else {})}
        case "select":
            return dict(request(" ".join(arguments.recipe), arguments.order))
    return {}


def _pair(word: str) -> tuple[str, str]:
    name, equals, value = word.partition("=")
    if not (name and equals and value):
        raise UserError(f"{word!r} is not key=value", hint="write for instance lr=1e-4")
    return name, value


def _stop_plan(plan: Plan, workspace: Workspace, arguments: Namespace) -> int:
    """Ask whoever carries the plan out; when nobody does, ask the stages that have outlived it."""
    from clew.plans import latest_runs

    if arguments.wait or any(given is not None for given in (arguments.at, arguments.before, arguments.deadline)):
        raise UserError("a pipeline has no steps", where=plan.id, hint="these options are for runs")
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
