"""How far a run goes from now on: further than it has come."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from clew.checkpoints import CheckpointStore
from clew.errors import UserError
from clew.lineage.words import known_settings
from clew.runs import Run
from clew.session.settings import STEPS


def check_end(run: Run, settings: Mapping[str, Any], begin: int, words: Sequence[str], *, child: bool = False) -> None:
    """Refuse at once an end that the run has passed; its trainer would refuse it only after a worker has started.

    Args:
        run: The run.
        settings: What is to be set; anything but a number is left to the trainer.
        begin: The step after which it would be set.
        words: All that was said, for what is advised instead.
        child: Whether it is said to a child of the run, which begins there.

    Raises:
        UserError: If the run, or its child, would have to end at that step or before it; with the key.
    """
    try:
        end = int(float(settings[STEPS]))
    except (KeyError, TypeError, ValueError, OverflowError):
        return
    if end > begin:
        return
    key = known_settings(run).get(STEPS)
    earlier = [one.step for one in CheckpointStore(run.checkpoints).all() if one.step < end]
    instead = ""
    if earlier:
        instead = f"; or clew fork {run.id} --at {max(earlier)} {shlex.join(words)} makes a child that ends there"
    elif key:
        instead = f"; or clew run {run.config_path} {key}={end} --name NAME makes another run"
    done = f"{begin} step{' is' if begin == 1 else 's are'} done{' where the child begins' if child else ''}"
    raise UserError(f"{key or STEPS} cannot be {end}: {done}", where=run.id, hint=f"say more than {begin}{instead}")
