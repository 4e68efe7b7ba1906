"""Fork: a child run that goes on from this boundary, in a process of its own or in this one."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

from clew.checkpoints import Checkpoint
from clew.errors import UserError
from clew.session.commands import Done, Rule, Standing
from clew.session.forking import bear, born_before, staged, switched
from clew.session.settings import write
from clew.session.verbs.base import Boundary, Result, Verb
from clew.session.verbs.pausing import going_on


def _fork(boundary: Boundary, args: Mapping[str, Any]) -> Result | Future[Result]:
    runs, name, switch = boundary.folder.parent, args.get("staging"), args.get("switch", False)
    if not isinstance(switch, bool):
        raise UserError(f"switch must be true or false, not {switch!r}")
    if (before := born_before(runs, name)) is not None:
        if switch:
            raise UserError(f"it was made already, at step {before.info.fork_step}", hint=f"clew resume {before.id}")
        return {"child": before.id}
    child = staged(runs, name)

    def born(checkpoint: Checkpoint) -> Result:
        return {"child": bear(child, checkpoint).id}

    if not switch:
        return boundary.save_later(born)
    boundary.require_switch()
    values = switched(boundary.settings(), child.info.changes)
    made = boundary.save_later(born).result()
    # The parent's state is safe, so this process may become the child.
    write(boundary.settings(), values)
    assert made is not None
    boundary.switch(made["child"])
    return made


def _left(standing: Standing, done: Done) -> Standing:
    """A parent whose process has gone on as its child has ended, and is not paused when it is resumed."""
    return going_on(standing, done) if done.args.get("switch") else standing


FORK = Verb("fork", _fork, frozenset({"staging", "switch"}), Rule(_left))
