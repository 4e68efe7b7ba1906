"""Taking runs and pipelines over from a machine that is gone."""

from __future__ import annotations

import time

from clew.errors import UserError
from clew.plans.executor import latest_runs
from clew.plans.storage import Plan
from clew.runs import IllegalMove, Run, RunState, State, Workspace
from clew.runs.states import OWNED


def take_from_elsewhere(item: Run | Plan, *, workspace: Workspace | None = None) -> None:
    """Take a run or a pipeline from an owner on another machine that has let its lease run out.

    It is interrupted then, and can be gone on with. Should its owner live all the same, it is refused at its next
    commit. What is over, or was never begun, has no owner, and stays as it is.

    Args:
        item: Which.
        workspace: Where the runs of a pipeline's stages are, which are taken over as well.

    Raises:
        UserError: If its owner is alive, or may be.
    """
    now = item.states.read()
    state = now.observed(time.time())
    if state in OWNED:
        raise _lives(item.id, now)
    if state is State.UNKNOWN:
        assert now.owner is not None, "only what has an owner can be unknown"
        try:
            item.states.take_over(f"taken over from {now.owner.host}")
        except IllegalMove as error:
            now = item.states.read()
            if now.observed(time.time()) in OWNED:  # it has just given a sign of life
                raise _lives(item.id, now) from error
    if isinstance(item, Plan) and workspace is not None:
        for run in latest_runs(item, workspace).values():
            if run.state is State.UNKNOWN:
                take_from_elsewhere(run)


def _lives(name: str, now: RunState) -> UserError:
    """The error about a run whose owner is to be believed alive."""
    owner = now.owner
    if owner is None or owner.is_here():
        hint = f"clew resume {name} follows it; clew stop {name} ends it"
        return UserError(f"there is nothing to take over: it is {now.state} on this machine", where=name, hint=hint)
    left = max(0.0, (now.lease_until or time.time()) - time.time())
    return UserError(
        f"there is nothing to take over: it belongs to {owner.host}, whose lease holds for {left:.0f} s more",
        where=name,
        hint="ask again when nothing has been heard of it for so long",
    )
