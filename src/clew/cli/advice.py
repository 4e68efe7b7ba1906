"""What is advised where something has not completed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from clew.errors import NotFinite
from clew.runs import Event, Failure, State, Workspace
from clew.runs.journal import decode

if TYPE_CHECKING:
    from clew.plans import Plan

LONGEST = 600
"""Characters of a reason; its end is often the advice."""


def why_it_ended(plan: Plan, workspace: Workspace) -> Failure | None:
    """Return why a pipeline has not completed, as the process has said it that carried it out.

    Args:
        plan: A pipeline that is over.
        workspace: Where its runs are.

    Returns:
        The failure of the stage that ended it; None where no stage did.
    """
    from clew import api

    state = plan.state
    if state is State.FAILED and (never := _never_started(plan)):
        return never
    failure = api.plan_result(plan, state, api.outside_results(plan, workspace)).failure
    return failure if failure is not None and failure.kind == "stage" else None


def _never_started(plan: Plan) -> Failure | None:
    """The failure of a stage that has no run: the plan's own journal knows of it, and it comes out the same again."""
    failed: dict[str, str] = {}
    is_over = False
    for event in _told(plan):
        if is_over:  # another attempt begins
            failed, is_over = {}, False
        kind, stage = event.get("event"), str(event.get("stage"))
        if kind == "failure" and not event.get("run"):
            failed[stage] = str(event.get("reason"))
        elif kind == "answer" and event.get("choice") in ("resume", "restart"):
            failed.pop(stage, None)
        is_over = kind == "completion"
    return next((Failure("stage", f"stage {stage}: {why}", lasting=True) for stage, why in failed.items()), None)


def _told(plan: Plan) -> Iterator[Event]:
    """The events of a plan's own journal."""
    try:
        lines = plan.events.read_bytes().splitlines()
    except FileNotFoundError:
        return
    yield from filter(None, map(decode, lines))


def way_on(name: str, why: Failure | None, *, is_plan: bool = False) -> str:
    """Return how something that has not completed is gone on with.

    Args:
        name: Of the run or the pipeline.
        why: Why its last attempt failed; None if it did not.
        is_plan: Whether it is a pipeline.
    """
    resume = f"clew resume {name}"
    if why is not None and why.lasting:
        again = "change the file, and clew run it again"
        other = again if is_plan else f"clew fork {name} key=value, or clew run FILE key=value --name NAME"
        return f"mend that, then {resume} (if only another config helps: {other})"
    if why is not None and why.kind == NotFinite.__name__:
        return f"{resume} lr_mul=0.5, say, or --at an earlier step (as it was, it would end so again)"
    return resume
