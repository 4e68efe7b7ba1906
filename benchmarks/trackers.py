"""One call of ``session.log`` against ``log_metrics`` of MLflow and ``log`` of Trackio: ten scalars each.

Everything is local: MLflow writes into SQLite, Trackio into its own folder; nobody calls home. Two costs are measured:
the time that the caller waits, and the processor time that the call brings about until the figures are in a file. Clew
and Trackio both only note the figures in the call; a thread of the same process, which shares its interpreter lock,
does the rest.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from common import Figure

from clew.runs import Owner, RunInfo, State, create_run
from clew.session import Session

VALUES = {f"metric_{number}": number / 7 for number in range(10)}
ROUNDS = 5
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
Log = Callable[[int], object]


@dataclass
class Contender:
    """Somebody who logs.

    Args:
        calls: In a round; fewer of slow ones.
        open: Makes a log of its own for each round; everything is stored when it is left.
    """

    calls: int
    open: Callable[[], contextlib.AbstractContextManager[Log]]


def main() -> None:
    """Print the ratios of Clew's cost to that of the others."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(QUIET, TRACKIO_DIR=f"{folder}/trackio", HF_HOME=f"{folder}/hf")
        contenders = {
            "Clew": Contender(5000, _clew(Path(folder))),
            "MLflow": Contender(50, _mlflow(folder)),
            "Trackio": Contender(2000, _trackio()),
        }
        waits, work = _measure(contenders)
    for name in ("MLflow", "Trackio"):
        Figure(f"session.log, against {name}'s, processor time", work["Clew"] / work[name], "x", 0.1).print()
        Figure("the same, time that the caller waits", waits["Clew"] / waits[name], "x", 0.1).print()
    for name in contenders:
        print(
            f"{name}: {waits[name] * 1e6:.1f} µs a call, {work[name] * 1e6:.1f} µs of processor time", file=sys.stderr
        )


def _measure(contenders: dict[str, Contender]) -> tuple[dict[str, float], dict[str, float]]:
    """Turn by turn; the median seconds that a call takes, and those of a processor that it costs."""
    rounds = [{name: _round(contender) for name, contender in contenders.items()} for _ in range(ROUNDS + 1)][1:]
    waits = {name: statistics.median(one[name][0] for one in rounds) for name in contenders}
    return waits, {name: statistics.median(one[name][1] for one in rounds) for name in contenders}


def _round(contender: Contender) -> tuple[float, float]:
    with contextlib.redirect_stdout(sys.stderr), contender.open() as log:
        log(0)
        began, worked = time.perf_counter(), time.process_time()
        for step in range(1, contender.calls + 1):
            log(step)
        waited = time.perf_counter() - began
        # Leaving stores what is still on its way; that is no cost of the caller, but of the processor.
    return waited / contender.calls, (time.process_time() - worked) / contender.calls


def _clew(folder: Path) -> Callable[[], contextlib.AbstractContextManager[Log]]:
    names = count()

    @contextlib.contextmanager
    def opened() -> Iterator[Log]:
        run = create_run(folder / "runs", RunInfo(f"bench-{next(names)}", "none"), "job: none\n", {})
        attempt = run.states.queue()
        run.states.move(State.STARTING, attempt=attempt)
        run.states.move(State.RUNNING, attempt=attempt, owner=Owner.current())
        with Session(run, None, attempt) as session:
            yield lambda step: session.log(step, VALUES)

    return opened


def _mlflow(folder: str) -> Callable[[], contextlib.AbstractContextManager[Log]]:
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")

    @contextlib.contextmanager
    def opened() -> Iterator[Log]:
        with mlflow.start_run():
            yield lambda step: mlflow.log_metrics(VALUES, step=step)

    return opened


def _trackio() -> Callable[[], contextlib.AbstractContextManager[Log]]:
    import trackio

    names = count()

    @contextlib.contextmanager
    def opened() -> Iterator[Log]:
        run = trackio.init("bench", name=f"bench-{next(names)}", embed=False, auto_log_gpu=False, auto_log_cpu=False)
        yield lambda step: run.log(VALUES, step=step)
        trackio.finish()

    return opened


if __name__ == "__main__":
    main()
