"""From a command in the inbox of a live run to its outcome in the journal, with steps of a millisecond, and paused.

The run is a process of its own, as a worker is. Its steps multiply matrices for a millisecond. A step that never leaves
the interpreter is measured beside it: there a thread that wants to say something waits for its turn, 5 ms as Python has
it. Whoever asks looks into the journal all the time, and counts from the rename that puts the command into
the inbox. ``LiveRun`` makes a command durable before and after that rename, and the run its outcome: so the disk's time
for that is measured beside it.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from common import Figure

from clew.runs import Command, JournalTail, Owner, Run, RunInfo, State, create_run
from clew.session import CheckpointConfig, RunStopped, Session
from clew.session.live import LiveRun

COMMANDS, STEP_SECONDS, DEADLINE = 200, 1e-3, 60.0


class Nothing:
    """A trainer without a state."""

    def save(self, directory: Path) -> None:
        """Write one byte, for a checkpoint has files."""
        (directory / "state").write_text("0")

    def load(self, directory: Path) -> None:
        """Take over nothing."""


def operation(kind: str) -> Callable[[], object]:
    """Return what a step does again and again until it is over."""
    if kind == "interpreted":
        return lambda: None
    import torch

    torch.set_num_threads(1)
    one, other = torch.rand(64, 64), torch.rand(64, 64)
    return lambda: one @ other


def work(run: Run, kind: str) -> None:
    """Be the run's process: make steps until a stop comes."""
    busy = operation(kind)
    attempt = run.states.queue()
    run.states.move(State.STARTING, attempt=attempt)
    run.states.move(State.RUNNING, attempt=attempt, owner=Owner.current())
    try:
        with Session(run, None, attempt) as session:
            step = session.attach(Nothing(), CheckpointConfig(every=10**9))
            while True:
                until = time.perf_counter() + STEP_SECONDS
                while time.perf_counter() < until:
                    busy()
                step += 1
                session.log(step, loss=1 / step)
                session.boundary(step)
    except RunStopped as stopped:
        run.states.move(stopped.state, attempt=attempt)


def main() -> None:
    """Print the latencies."""
    with tempfile.TemporaryDirectory() as folder:
        with working(Path(folder), "multiplied") as run:
            running, in_all = _median(run, _rename), _median(run, _send)
            LiveRun(run).pause(wait=DEADLINE)
            paused = _median(run, _rename)
        with working(Path(folder), "interpreted") as run:
            interpreted = _median(run, _rename)
        disk = _disk(Path(folder))
    Figure("a command in the inbox to its outcome in the journal, at steps of 1 ms", running * 1e3, "ms", 5.0).print()
    Figure("the same of a paused run", paused * 1e3, "ms").print()
    Figure("the same at steps of 1 ms that never leave the interpreter", interpreted * 1e3, "ms").print()
    Figure("the same at steps of 1 ms, with LiveRun.send, which makes the command durable", in_all * 1e3, "ms").print()
    Figure("a line made durable by the disk, as in each of these", disk * 1e3, "ms").print()


@contextmanager
def working(folder: Path, kind: str) -> Iterator[Run]:
    """Give a run that makes steps, and stop it."""
    run = create_run(folder, RunInfo(kind, "none"), "job: none\n", {})
    process = subprocess.Popen([sys.executable, __file__, run.path, kind])
    try:
        _wait(lambda: run.state is State.RUNNING)
        yield run
        LiveRun(run).stop(wait=DEADLINE)
        process.wait(DEADLINE)
    finally:
        process.kill()
        process.wait()


def _median(run: Run, put: Callable[[Run], tuple[str, float]]) -> float:
    """Return the median seconds from a command to its outcome in the journal."""
    tail, taken = JournalTail(run.path / "journal"), []
    tail.poll()
    for number in range(COMMANDS):
        time.sleep(number % 7 / 1000)  # not always at the same moment of a step; no wait for anything
        command, began = put(run)
        _wait(lambda command=command: any(event.get("id") == command for event in tail.poll()))
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def _rename(run: Run) -> tuple[str, float]:
    """Put a command into the inbox as anybody can, and return its id and when that was."""
    command = Command("note", {"text": "x"}, sent=time.time())
    staged = run.path / "inbox" / f".{command.id}"
    staged.write_text(json.dumps(asdict(command)))
    began = time.perf_counter()
    staged.rename(staged.with_name(f"{command.id}.json"))
    return command.id, began


def _send(run: Run) -> tuple[str, float]:
    """Send a command, and return its id and when that was begun."""
    began = time.perf_counter()
    return LiveRun(run).note("x").id, began


def _wait(condition) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the run does not answer")


def _disk(folder: Path) -> float:
    """Return the median seconds that the disk takes for a line."""
    taken = []
    with (folder / "line").open("ab", buffering=0) as stream:
        for _ in range(COMMANDS):
            stream.write(b"x" * 200 + b"\n")
            began = time.perf_counter()
            os.fsync(stream.fileno())
            taken.append(time.perf_counter() - began)
    return statistics.median(taken)


if __name__ == "__main__":
    work(Run(Path(sys.argv[1])), sys.argv[2]) if len(sys.argv) > 1 else main()
