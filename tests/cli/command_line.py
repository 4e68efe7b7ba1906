"""What the tests of the command line share."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


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
