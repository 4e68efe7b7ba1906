"""A job without a model, for tests of everything around a job; real workers load it from this file."""

from __future__ import annotations

import os
import random
import signal
import time
from functools import partial
from pathlib import Path

import clew
from clew.session import CheckpointConfig, Outcome, Session


@clew.config
class CountConfig(clew.JobConfig):
    """Count to a number."""

    until: int = 10
    """Where to end."""
    start: float = 0.0
    """Added to the result."""
    source: clew.InputPath = ""
    """A file whose length is added to the result."""
    pause: float = 0.0
    """Seconds between steps."""
    every: int = 5
    """Save after so many steps."""
    fail_at: int = 0
    """Raise at this step."""
    kill_at: int = 0
    """Kill this process at that step, in the first attempt."""


class Walk:
    """A random walk: its state is the position and the generator."""

    def __init__(self, seed: int, last: int = 10) -> None:
        self.random = random.Random(seed)
        self.value = 0.0
        self.lr = 1.0
        self.done = 0
        self.last = last

    def step(self) -> None:
        self.value += self.random.random() * self.lr
        self.done += 1

    def settings(self) -> list[clew.Setting]:
        return [
            clew.Setting("lr", lambda: self.lr, partial(setattr, self, "lr"), low=0),
            clew.Setting("steps", lambda: self.last, partial(setattr, self, "last"), low=self.done + 1, whole=True),
        ]

    def save(self, directory: Path) -> None:
        version, numbers, gauss = self.random.getstate()
        (directory / "state").write_text(repr((self.value, self.done, (version, numbers, gauss))))

    def load(self, directory: Path) -> None:
        import ast

        self.value, self.done, state = ast.literal_eval((directory / "state").read_text())
        self.random.setstate(state)


@clew.job
def count(session: Session[CountConfig]) -> Outcome:
    """Count, with a random walk beside it."""
    config = session.config
    walk = Walk(config.seed, config.until)
    session.attach(walk, CheckpointConfig(every=config.every))
    session.horizon(walk.last)
    while walk.done < walk.last:
        walk.step()
        step = walk.done
        session.log(step, loss=1 / step, value=walk.value)
        if step == config.fail_at:
            raise ValueError("the job went wrong")
        if step == config.kill_at and session.attempt == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        session.boundary(step)
        time.sleep(config.pause)
    with session.artifact("walk.txt") as path:
        path.write_text(repr(walk.value))
    extra = len(Path(config.source).read_text()) if config.source else 0
    return Outcome(metrics={"value": walk.value + config.start + extra, "steps": float(walk.last)})
