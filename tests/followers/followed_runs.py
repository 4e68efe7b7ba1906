"""Runs whose journals are written by hand, for tests of those who follow them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from clew.config import dump
from clew.followers import FollowerConfig, FollowingConfig, followers_of
from clew.followers.starting import registries
from clew.runs import JobResult, JournalWriter, Owner, Run, RunInfo, State, create_run

Point = tuple[str, int, float]


def made_run(workspace: Path, name: str = "run") -> Run:
    """A run that was just made."""
    config = "job: nobody:job\nname: run\nlr: 0.001\ndeep:\n  list: [1, 2]\n"
    return create_run(workspace / "runs", RunInfo(name, "nobody:job"), config, {})


def begin(run: Run) -> int:
    """Open the next attempt, as a worker would that lives as long as this process."""
    attempt = run.states.queue()
    run.states.move(State.STARTING, attempt=attempt)
    run.states.move(State.RUNNING, attempt=attempt, owner=Owner.current())
    return attempt


def tell(run: Run, attempt: int, first: int, last: int, *, scale: float = 1.0) -> None:
    """Go on from the step before ``first``, and write two metrics a step."""
    journal = JournalWriter(run.path / "journal", attempt)
    journal.write("restore", step=first - 1)
    for step in range(first, last + 1):
        journal.write("metric", step=step, values={"loss": scale / step, "pass@1": scale * step})
        journal.write("generation", step=step, completion="x")
    journal.close()


def end(run: Run, attempt: int, state: State = State.COMPLETED) -> None:
    """End the attempt; a completed one has results."""
    metrics = {"accuracy": 0.5} if state is State.COMPLETED else {}
    JobResult(run.id, "nobody:job", state.value, 1.0, attempt, metrics=metrics).save(run.path)
    run.states.move(state, attempt=attempt)


def run_that_went_back(workspace: Path) -> Run:
    """Ten steps, then a second attempt that does those after the sixth again, and gets to twelve."""
    run = made_run(workspace)
    tell(run, begin(run), 1, 10)
    end(run, 1, State.INTERRUPTED)
    tell(run, begin(run), 7, 12, scale=2.0)
    end(run, 2)
    return run


def points(run: Run) -> list[Point]:
    """What the journal says, as it counts now."""
    return sorted(
        (name, event["step"], float(value)) for event in run.events("metric") for name, value in event["values"].items()
    )


def command(run: Run, tracker: FollowerConfig, before: str = "") -> list[str]:
    """The command line of a process that follows a run to its end, after something was done to it before."""
    settings = FollowingConfig(track=[tracker])
    said, (name,) = json.dumps(dump(settings, registries())), followers_of(settings)
    code = f"{before}\nimport os, sys\nfrom clew.followers.process import main\nos._exit(main(sys.argv[1:]))"
    return [sys.executable, "-c", code, str(run.path), str(run.states.read().attempt), name, said]


def follow(run: Run, tracker: FollowerConfig, before: str = "", code: int = 0) -> str:
    """Follow a run to its end in a process of its own, and return what it printed."""
    environment = {**tracker.environment, **os.environ}
    done = subprocess.run(command(run, tracker, before), capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout
