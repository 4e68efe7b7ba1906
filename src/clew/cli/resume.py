"""``clew resume``: go on with something where it was left, or differently, and wait for its end."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from clew import api
from clew.cli.attendant import TerminalAttendant
from clew.cli.detach import detach_plan, detach_run
from clew.cli.finding import find, workspace_of
from clew.cli.outcome import conclude, conclude_plan
from clew.cli.progress import watching
from clew.cli.starting import no_stages, notifier_of, say_it_runs, tell_end
from clew.config.problems import show
from clew.errors import UserError
from clew.jobs.choices import Choice
from clew.lineage.going_on import Heeding, Wish
from clew.notify import TellingWatcher
from clew.plans import CHOICES, Plan, start_from
from clew.runs import ACTIVE, IllegalMove, Run, State, Workspace

if TYPE_CHECKING:
    from clew.cli.parser import Parser


def configure(parser: Parser, verb: str) -> None:
    """Add the arguments."""
    parser.add_argument("name", metavar="RUN|PIPELINE", help="what to go on with")
    parser.add_argument(
        "words",
        nargs="*",
        metavar="key=value",
        help="of a run: what it does otherwise from now on, such as checkpoint.every=10 or lr=1e-4",
    )
    parser.add_argument(
        "--at",
        default="",
        metavar="STEP",
        help="of a run: go back to this checkpoint; later ones count no longer",
    )
    parser.add_argument("--ranks", type=int, metavar="N", help="go on in so many processes, from now on")
    parser.add_argument("--mesh", default="", metavar="PRESET", help="go on with what they share: ddp, fsdp, tp, …")
    parser.add_argument("--on", default="", metavar="TARGET", help="go on there, from now on (there is local)")
    parser.add_argument(
        "--take-over", action="store_true", help="take it from another machine that is gone: its lease has run out"
    )
    parser.add_argument(
        "--from-stage", default="", metavar="STAGE", help="of a pipeline: do this stage and what needs it again"
    )
    parser.add_argument("--detach", action="store_true", help="return as soon as it runs")


def main(arguments: Namespace) -> int:
    """Go on, wait, and say what came of it."""
    workspace = workspace_of(arguments)
    found = find(workspace, arguments.name)
    wish = Wish(tuple(arguments.words), arguments.at, arguments.ranks, arguments.mesh, arguments.on)
    if isinstance(found, Run) and arguments.from_stage:
        raise no_stages(found.id)
    if wish and not isinstance(found, Run):
        raise UserError(
            "a pipeline goes on as it is: only a single run can go on differently",
            where=found.id,
            hint=f"name the run of a stage (clew show {found.id} lists them), or change the file and clew run it again",
        )
    if arguments.take_over:
        _take_over(found, workspace)
    if isinstance(found, Run):
        return _resume_run(found, workspace, wish, arguments.detach)
    return resume_plan(found, workspace, arguments.detach, arguments.from_stage)


def _take_over(found: Run | Plan, workspace: Workspace) -> None:
    before = found.states.read()
    api.take_from_elsewhere(found, workspace=workspace)
    if before.owner is not None and found.states.read().attempt != before.attempt:
        print(f"{found.id}: taken over from {before.owner.host}; whatever lives there commits nothing more")


def _resume_run(run: Run, workspace: Workspace, wish: Wish, detach: bool) -> int:
    was = run.state
    choice = api.let_go_on(run, wish)
    was = run.state if choice is not None else was  # one that was about to end has ended meanwhile
    if was is State.COMPLETED:
        print(f"{run.id} has completed already; clew show {run.id} shows what came of it")
        return 0
    if was is State.PAUSED:
        print(f"{run.id} was paused; it goes on{f' with {wish}' if wish else ''}")
    elif was in ACTIVE:
        say_it_runs(run, detach)
    if choice is not None:
        _say(run, choice)
    if was in ACTIVE and detach:
        return 0
    return _attend(run, workspace, choice, detach)


def _say(run: Run, choice: Choice) -> None:
    """Say what the next attempt does otherwise."""
    for key, value in choice.keys.items():
        print(f"{run.id}: {key} = {show(value)} from now on (it was {show(choice.was.get(key))})")
    for name, value in choice.settings.items():
        after = "" if choice.set_at is None else f" after step {choice.set_at}, where it was set before"
        print(f"{run.id}: {name} = {value} is set{after or ' where it begins'}")
    if choice.back is not None:
        print(f"{run.id}: goes back to step {choice.back}; what came later counts no longer, and is set aside")
    if choice.target:
        print(f"{run.id}: runs on {choice.target}")


def _attend(run: Run, workspace: Workspace, choice: Choice | None, detach: bool) -> int:
    notifier = notifier_of(workspace)
    try:
        if detach:
            heeding = Heeding(run, choice)
            code = detach_run(run)
            heeding.wait()
            return code
        with notifier, watching() as watcher:
            heeding = Heeding(run, choice, TellingWatcher(watcher, notifier))
            result = api.attend(run, heeding)
            tell_end(notifier, result)
    except IllegalMove as error:
        raise api.started_elsewhere(run.id) from error
    heeding.check()
    return conclude(run, result)


def resume_plan(plan: Plan, workspace: Workspace, detach: bool, from_stage: str = "") -> int:
    """Go on with a pipeline, and wait for its end unless it is detached; return the exit code."""
    state = plan.state
    if from_stage and state not in ACTIVE | {State.UNKNOWN}:
        if (plan.path / "tree.json").is_file():  # else it was never started, which is said below
            start_from(plan, plan.pipeline, workspace, from_stage)
    elif from_stage:
        raise UserError(f"the pipeline is {state}", where=plan.id, hint=f"clew stop {plan.id} ends it")
    elif state is State.COMPLETED:
        print(f"{plan.id} has completed already; clew show {plan.id} shows what came of it")
        return 0
    if state is State.UNKNOWN:
        raise api.elsewhere(plan.id)
    if state in ACTIVE:
        print(f"{plan.id} is running already{'' if detach else '; following it'}")
        for question in plan.questions().values():
            print(f"  it waits for: clew answer {plan.id} {question.stage} {'|'.join(CHOICES)}")
        if detach:
            return 0
    if detach:
        return detach_plan(plan, workspace)
    with watching() as watcher:
        attendant = TerminalAttendant(watcher)
        result = api.attend_plan(plan, workspace=workspace, watcher=watcher, attendant=attendant)
    return conclude_plan(plan, workspace, result)
