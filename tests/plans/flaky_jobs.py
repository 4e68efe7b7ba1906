"""A job that fails as it is told; real workers load it from this file."""

from __future__ import annotations

import builtins
import time
from pathlib import Path

import clew
from clew.session import Outcome, Session


@clew.config
class FlakyConfig(clew.JobConfig):
    """Fail, or do not."""

    error: str = ""
    """Name of the exception; empty means that all goes well."""
    good_attempt: int = 1000
    """From this attempt on all goes well."""
    gate: str = ""
    """A file; as soon as it is there all goes well."""
    score: float = 0.5
    """The metric."""
    source: str = ""
    """Anything."""
    pause: float = 0.0
    """Seconds that it takes."""


@clew.job
def flaky(session: Session[FlakyConfig]) -> Outcome:
    """Fail as told."""
    config = session.config
    session.log(1, score=config.score)
    for step in range(int(config.pause / 0.02)):
        time.sleep(0.02)
        session.boundary(step + 1)
    mended = session.attempt >= config.good_attempt or (config.gate and Path(config.gate).exists())
    if config.error and not mended:
        kind = getattr(builtins, config.error, None) or getattr(clew, config.error)
        raise kind("it went wrong")
    with session.artifact("out") as path:
        path.write_text(str(config.score))
    return Outcome(metrics={"score": config.score, "attempt": float(session.attempt)})
