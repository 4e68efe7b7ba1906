"""What the tests of the command line share."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

MY_JOB = '''
"""Jobs without a model."""

import json
import time
from pathlib import Path
from typing import ClassVar

import clew


@clew.config
class CountConfig(clew.JobConfig):
    """Counting."""

    presets: ClassVar = {"far": {"to": 1000}}

    to: int = 10
    """How far."""
    hold_at: int = 0
    """Stand at this step until the gate is there."""
    gate: str = "gate"
    """A file that somebody makes."""
    fail_at: int = 0
    """Raise at this step."""
    source: str = ""
    """Anything."""


class Counter:
    value = 0

    def save(self, directory: Path) -> None:
        (directory / "value").write_text(str(self.value))

    def load(self, directory: Path) -> None:
        self.value = int((directory / "value").read_text())


@clew.job
def count(session: clew.Session[CountConfig]) -> clew.Outcome:
    """Count to a number."""
    config = session.config
    counter = Counter()
    done = session.attach(counter, clew.CheckpointConfig(every=5))
    session.horizon(config.to)
    for step in range(done + 1, config.to + 1):
        counter.value = step
        session.log(step, loss=1 / step)
        print("counted", step)
        if step == config.fail_at:
            raise ValueError("boom")
        session.boundary(step)
        while step == config.hold_at and not Path(config.gate).exists():
            session.boundary(step)
            time.sleep(0.01)
    with session.artifact("number") as path:
        path.write_text(str(counter.value))
    return clew.Outcome(metrics={"loss": 1 / counter.value})


@clew.config
class CheckedConfig(CountConfig):
    """Counting upwards."""


def check(config: CheckedConfig, runs: Path) -> None:
    if config.to < 0:
        raise clew.UserError("to is below zero", hint="count up, not down")


@clew.job(check=check)
def checked(session: clew.Session[CheckedConfig]) -> clew.Outcome:
    """Count nothing."""
    return clew.Outcome()
'''

COUNT = """\
job: my_job.py:count
to: 10
"""

PIPELINE = """\
pipeline: numbers
stages:
  first: {job: my_job.py:count, to: 10}
  second: {job: my_job.py:count, to: 5, source: "${first.artifacts.number}"}
"""


@dataclass
class Output:
    """What a command line gave."""

    code: int
    out: str
    err: str


Cli = Callable[..., Output]
Spawn = Callable[..., "subprocess.Popen[str]"]


def has_counted(project: Path, name: str, number: int) -> bool:
    """Say whether a run has come to a number, from its log: the journal may be half a second behind."""
    return any(f"counted {number}\n" in path.read_text() for path in (project / "runs" / name / "logs").glob("*"))


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """Read the output of a process up to the first line that holds a text; the test's deadline holds."""
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if text in line:
            return said
    raise AssertionError(f"{text!r} was never said:\n{said}")
