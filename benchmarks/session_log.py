"""What a step pays for the session: ten scalars logged and one boundary, in a loop that does nothing else."""

from __future__ import annotations

import tempfile
from pathlib import Path

from common import Figure, alternate

from clew.runs import Owner, RunInfo, State, create_run
from clew.session import CheckpointConfig, Session

STEPS = 5_000
STEP_SECONDS = 5e-3


class Nothing:
    """A trainer without a state."""

    def save(self, directory: Path) -> None:
        """Write one byte, for a checkpoint has files."""
        (directory / "state").write_text("0")

    def load(self, directory: Path) -> None:
        """Take over nothing."""


def main() -> None:
    """Print the cost of a step."""
    with tempfile.TemporaryDirectory() as folder:
        run = create_run(Path(folder), RunInfo("bench", "none"), "job: none\n", {})
        attempt = run.states.queue()
        run.states.move(State.STARTING, attempt=attempt)
        run.states.move(State.RUNNING, attempt=attempt, owner=Owner.current())
        with Session(run, None, attempt) as session:
            session.attach(Nothing(), CheckpointConfig(every=10**9))
            values = {f"metric_{number}": number / 7 for number in range(10)}

            def steps() -> None:
                for step in range(1, STEPS + 1):
                    session.log(step, values)
                    session.boundary(step)

            (seconds,) = alternate(7, steps)
    cost = seconds / STEPS
    Figure("session.log of 10 scalars and a boundary, a step", cost * 1e6, "µs", 20.0, at_least=False).print()
    Figure("the same, of a step of 5 ms", cost / STEP_SECONDS * 100, "%", 0.5, at_least=False).print()


if __name__ == "__main__":
    main()
