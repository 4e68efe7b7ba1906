"""An inspection of weights that no live run has: a fork from their checkpoint makes it, and is gone afterwards."""

from __future__ import annotations

import math
import secrets
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clew.api import fork
from clew.cli.looking import Looking
from clew.errors import RunFailed
from clew.inspection.published import folder_of
from clew.runs import Command, Run, Workspace
from clew.runs.files import link_tree, sync_directory
from clew.session.commands import APPLIED
from clew.targets import LocalTarget
from clew.targets.watching import follow


class _LookingUntil(Looking):
    """Asks the run to end when the time is up: what it has seen until then is kept."""

    def __init__(self, run: Run, name: str, seconds: float) -> None:
        super().__init__(run, name)
        self.is_late = False
        self._deadline = time.monotonic() + seconds

    def tick(self) -> None:
        """Read on, and look at the clock."""
        super().tick()
        if self.answer is None and not self.is_late and time.monotonic() > self._deadline:
            self.is_late = True
            self._run.inbox.send("stop")


def look_back(
    run: Run, args: Mapping[str, Any], at: str | None, workspace: Workspace, seconds: float = math.inf
) -> Mapping[str, Any]:
    """Have a child that begins where a run was look at its samples, and end.

    What it has seen becomes the run's; also what it had seen when it was given up, with which the next one goes on.

    Args:
        run: The run.
        args: Of ``inspect``.
        at: A step, a tag, ``best`` or ``last``; None is the newest checkpoint.
        workspace: Where runs are.
        seconds: So long it may take; then the child is asked to end, which it does when it has begun.

    Returns:
        The result of ``inspect``.

    Raises:
        UserError: If there is no such checkpoint, or the inspection is refused.
        RunFailed: If the time is up, or the child fails before; it is kept then.
    """
    made = fork(run, at=at, name=f"{run.id}-inspect-{secrets.token_hex(3)}", hold=True, workspace=workspace)
    child = made.child
    assert child is not None, "what has a checkpoint, or is not alive, is forked at once"
    places = _places(run, child, args)
    for own, lent in places:
        if own.is_dir():
            lent.parent.mkdir(exist_ok=True)
            link_tree(own, lent)
    with _LookingUntil(child, run.id, seconds) as looking:
        looking.command = _ask(child, args)
        follow(LocalTarget().launch(child), looking)
    if looking.answer is None and not looking.is_late:
        what, hint = f"the child that was to inspect it ended: {child.state}", f"clew logs {child.id} says why"
        raise RunFailed(what, where=run.id, hint=hint)
    for own, lent in places:
        _replace(own, lent)
    shutil.rmtree(child.path)
    if looking.is_late and (looking.answer is None or looking.answer["outcome"] != APPLIED):
        what, hint = f"it was not done within {seconds:g} s", "clew inspect goes on with what was seen until then"
        raise RunFailed(what, where=run.id, hint=hint)
    return looking.result()


def _ask(child: Run, args: Mapping[str, Any]) -> str:
    """Put the commands for its first boundary into its inbox, and return the id of the one that counts."""
    step, now = child.info.fork_step, time.time()
    asked = child.inbox.post(Command("inspect", dict(args), issuer="inspect", at=step, sent=now))
    child.inbox.post(Command("abort", issuer="inspect", at=step, sent=now + 1e-3))
    return asked.id


def _places(run: Run, child: Run, args: Mapping[str, Any]) -> list[tuple[Path, Path]]:
    """The inspection and its unfinished form, in the run and in its child."""
    step, split = child.info.fork_step or 0, str(args.get("split", "train"))
    finals = [folder_of(one.path, step, split) for one in (run, child)]
    return [(finals[0], finals[1]), (_unfinished(finals[0]), _unfinished(finals[1]))]


def _unfinished(final: Path) -> Path:
    return final.with_name(f".making-{final.name}")


def _replace(own: Path, lent: Path) -> None:
    """Put what a child has, or has no longer, into the place of what its parent has."""
    old = own.with_name(f".trash-{own.name}-{secrets.token_hex(3)}")
    staging = own.with_name(f".taking-{own.name}-{secrets.token_hex(3)}")
    if lent.is_dir():
        own.parent.mkdir(exist_ok=True)
        link_tree(lent, staging)
    if own.is_dir():
        own.rename(old)
    if staging.is_dir():
        staging.rename(own)
        sync_directory(own.parent)
    shutil.rmtree(old, ignore_errors=True)
