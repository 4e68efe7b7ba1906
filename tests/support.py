"""What several rooms' tests share."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from clew.jobs import create_job_run, load_job
from clew.runs import Run, Workspace

IMPORTED = ["torch._dynamo", "clew.models.exchange", "clew.sharding.parallel", "clew.train.loop", "clew.train.meshed"]
"""What the process has imported that ranks are copies of. It finds modules where Python does, not where tests do."""
TINY = f"{Path(__file__).parent / 'tiny_jobs.py'}:count"


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for something that happens in another process; it has a deadline."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def in_ranks(ranks: int, body: Callable[..., None], *given: object, seconds: float) -> None:
    """Call ``body(rank, *given)`` in so many processes, copies of one that has imported torch, and wait for them."""
    import multiprocessing

    from torch.multiprocessing import start_processes

    multiprocessing.get_context("forkserver").set_forkserver_preload(IMPORTED)
    processes = start_processes(body, given, nprocs=ranks, join=False, start_method="forkserver")
    deadline = time.monotonic() + seconds
    try:
        while not processes.join(timeout=1.0):
            assert time.monotonic() < deadline, "the processes did not end in time"
    finally:
        for process in processes.processes:
            process.kill()


def tiny_run(workspace: Workspace, **config: object) -> Run:
    """Make a run of the counting job."""
    return create_job_run(workspace, load_job({"job": TINY, **config}))
