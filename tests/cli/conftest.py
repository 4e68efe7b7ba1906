"""A folder with a job of one's own, and the command line to use on it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import COUNT, MY_JOB, PIPELINE, Cli, Output, Spawn

from clew.cli.main import main


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
