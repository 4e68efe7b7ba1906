"""What surrounds an attempt in its process: how it is claimed, and who is told when the process changes its run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from clew.runs import Artifact, Owner, Run, State


@dataclass(frozen=True)
class Fetched:
    """A checkpoint that was fetched from elsewhere.

    Attributes:
        step: Its finished steps.
        source: From where.
        bytes: Its size.
        fetched: As much of it as was not here already.
    """

    step: int
    source: str
    bytes: int
    fetched: int


class Lifecycle:
    """Told of a process that goes on as another run. This one does the least; a worker's also writes results."""

    def left(self, run: Run, attempt: int, successor: str, step: int, artifacts: Mapping[str, Artifact]) -> None:
        """End a run as which the process does not go on.

        Args:
            run: It is safe up to ``step``.
            attempt: The attempt that ends.
            successor: The run as which the process goes on.
            step: The number of finished steps.
            artifacts: What the attempt has published.
        """
        reason = f"this process goes on as {successor} from step {step}"
        run.states.move(State.STOPPED, attempt=attempt, reason=reason, successor=successor)

    def entered(self, run: Run, attempt: int) -> None:
        """Begin a run as which the process goes on; its attempt is claimed already."""

    def fetch(self, run: Run, attempt: int, steps: Mapping[int, int]) -> Fetched | None:
        """Bring back the newest of a run's checkpoints from where its copies are, since none here can be used.

        Args:
            run: The run.
            attempt: The attempt that is to go on from it.
            steps: Of those that the run has saved and that still count; to each the first attempt whose copy will do.

        Returns:
            What was fetched; None where nothing says that there are copies.
        """
        return None


def share_log(parent: Path, child: Path) -> None:
    """Let what a process prints stand in the logs of both runs that it was: it goes on writing to the same file."""
    with suppress(OSError):  # a script's run has no log
        os.link(parent, child)


def claim(run: Run) -> int:
    """Open the next attempt at a run for this very process, and return its number.

    Raises:
        IllegalMove: If the run is in a state that allows none, or somebody else was quicker.
    """
    attempt = run.states.queue()
    run.states.move(State.STARTING, attempt=attempt)
    run.states.move(State.RUNNING, attempt=attempt, owner=Owner.current())
    return attempt
