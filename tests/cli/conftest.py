"""A folder with a job of one's own, and the command line to use on it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import Cli, Output, Spawn

from clew.cli.main import main

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


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a job, a config and a pipeline; it is the workspace and the current folder."""
    (tmp_path / "my_job.py").write_text(MY_JOB)
    (tmp_path / "count.yaml").write_text(COUNT)
    (tmp_path / "numbers.yaml").write_text(PIPELINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CLEW_WORKSPACE", raising=False)
    return tmp_path


@pytest.fixture
def clew(project: Path, capsys: pytest.CaptureFixture[str]) -> Cli:
    """The command line in this process."""

    def call(*words: str) -> Output:
        capsys.readouterr()
        code = main([str(word) for word in words])
        captured = capsys.readouterr()
        return Output(code, captured.out, captured.err)

    return call


@pytest.fixture
def spawn(project: Path) -> Iterator[Spawn]:
    """The command line in a process of its own, whose stdout and stderr are one pipe."""
    started: list[subprocess.Popen[str]] = []

    def call(*words: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "clew.cli", *words],
            cwd=project,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        started.append(process)
        return process

    yield call
    (project / "gate").touch()  # whatever a failed test left standing goes on and ends
    for process in started:
        with process:
            process.kill()
