"""What several rooms' tests share."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from clew.jobs import create_job_run, load_job
from clew.runs import Run, Workspace

TINY = f"{Path(__file__).parent / 'tiny_jobs.py'}:count"


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for something that happens in another process; it has a deadline."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def tiny_run(workspace: Workspace, **config: object) -> Run:
    """Make a run of the counting job."""
    return create_job_run(workspace, load_job({"job": TINY, **config}))
