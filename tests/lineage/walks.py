"""A job without a model that can do all that can be asked of a live run; real workers load it from this file."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np

import clew
from clew.data.feed import Feed
from clew.inspection import Scores, Selection
from clew.runs import Command, Owner, Run, State, Workspace
from clew.session import LiveConfig, Outcome, RunStopped, Session
from clew.session.surface import MergeRequest


@clew.config
class WalkConfig(clew.JobConfig):
    """A walk over numbered samples."""

    steps: int = 12
    """How far to go."""
    lr: float = 1.0
    """How far a step carries."""
    decay: float = 0.1
    """What a step forgets."""
    every: Annotated[int, clew.NOT_HASHED] = 5
    """Save after so many steps."""
    halfway: Annotated[bool, clew.NOT_HASHED] = False
    """Save halfway, too."""
    log_every: Annotated[int, clew.NOT_HASHED] = 1
    """Log after so many steps: the mean position since the last time."""
    pause: float = 0.0
    """Seconds between steps."""
    kill_at: int = 0
    """Kill this process at that step, in the first attempt."""


class Known:
    """Scores: the loss of a sample is its number."""

    batch_size = 8

    def __len__(self) -> int:
        return 20

    def score(self, ids: Any, *, tokens: bool = False) -> Scores:
        return Scores(loss=np.asarray(ids, dtype=np.float64))

    def fields(self, ids: Any) -> list[Mapping[str, Any]]:
        return [{"text": f"sample {number}", "length": int(number)} for number in ids]


class Walk:
    """Its state: a position, a momentum, a generator, and where it is in its samples."""

    def __init__(self, config: WalkConfig) -> None:
        self.lr, self.decay, self.last = config.lr, config.decay, config.steps
        self.position, self.momentum, self.done, self.fade = 0.0, 0.0, 0, 0.5
        self.passed: list[float] = []
        self.random = random.Random(config.seed)
        self.feed = Feed(20, config.seed, 2)
        self.taken: list[list[int]] = []

    def step(self) -> None:
        ids = self.feed.take()
        self.taken.append(ids.tolist())
        self.momentum = self.fade * self.momentum + float(ids.sum()) * self.random.random()
        self.position = self.position * (1 - self.decay) + self.lr * self.momentum
        self.done += 1
        self.passed.append(self.position)

    def mean(self) -> float:
        """The mean position since the last time."""
        passed, self.passed = self.passed, []
        return sum(passed) / len(passed)

    def settings(self) -> list[clew.Setting]:
        return [
            clew.Setting("lr", lambda: self.lr, partial(setattr, self, "lr"), low=0, key="lr"),
            clew.Setting("fade", lambda: self.fade, partial(setattr, self, "fade"), low=0, high=1),
            clew.Setting(
                "steps", lambda: self.last, partial(setattr, self, "last"), low=self.done + 1, whole=True, key="steps"
            ),
        ]

    def save(self, directory: Path) -> None:
        self.snapshot()(directory)

    def snapshot(self) -> Callable[[Path], None]:
        version, numbers, gauss = self.random.getstate()
        feed = self.feed.state()
        if feed["selection"] is not None:
            feed["selection"]["ids"] = [part.tolist() for part in feed["selection"]["ids"]]
        state = {
            "position": self.position,
            "momentum": self.momentum,
            "done": self.done,
            "passed": list(self.passed),
            "random": [version, numbers, gauss],
            "feed": feed,
        }
        return lambda directory: (directory / "walk.json").write_text(json.dumps(state)) and None

    def load(self, directory: Path) -> None:
        state = json.loads((directory / "walk.json").read_text())
        self.position, self.momentum, self.done = state["position"], state["momentum"], state["done"]
        self.passed = state["passed"]
        version, numbers, gauss = state["random"]
        self.random.setstate((version, tuple(numbers), gauss))
        self.feed.load(state["feed"])

    def evaluate(self) -> dict[str, float]:
        return {"far": abs(self.position)}

    def reset(self, checkpoint: Path | None, *, optimizer: bool) -> None:
        if checkpoint is not None:
            state = json.loads((checkpoint / "walk.json").read_text())
            self.position, self.momentum = state["position"], state["momentum"]
        if optimizer:
            self.momentum = 0.0

    def select(self, selection: Selection | None) -> None:
        self.feed.select(selection)

    def scorer(self, split: str) -> Known:
        return Known()

    def merge(self, request: MergeRequest) -> dict[str, Any]:
        found = [
            self.position if source is None else json.loads((source / "walk.json").read_text())["position"]
            for source in request.sources
        ]
        self.position = sum(found) / len(found)
        return {"models": len(found)}

    def digests(self) -> dict[str, str]:
        return {"weights": hashlib.sha256(repr(self.position).encode()).hexdigest()[:32]}


def go(session: Session[WalkConfig], walk: Walk | None = None) -> Walk:
    """Walk to the end."""
    config = session.config
    walk = walk or Walk(config)
    policy = clew.CheckpointConfig(every=config.every, halfway=config.halfway)
    session.attach(walk, policy, LiveConfig(digest_every=1))
    session.horizon(walk.last)
    while walk.done < walk.last:
        walk.step()
        if walk.done % config.log_every == 0 or walk.done == walk.last:
            session.log(walk.done, position=walk.position, first=walk.taken[-1][0], mean=walk.mean())
        if walk.done == config.kill_at and session.attempt == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        session.boundary(walk.done)
        time.sleep(config.pause)
    return walk


@clew.job
def walk(session: Session[WalkConfig]) -> Outcome:
    """Walk, and be steered."""
    return Outcome(metrics={"position": go(session).position})


WALK = f"{Path(__file__)}:walk"
"""The job, as a config names it."""


def made(workspace: Workspace, name: str = "a", **config: Any) -> Run:
    """Make a run that walks, and start nothing."""
    from clew.jobs import create_job_run, load_job

    return create_job_run(workspace, load_job({"job": WALK, "name": name, **config}))


def ask(run: Run, verb: str, /, at: int | None = None, **args: Any) -> Command:
    """Ask something of a run, at its next boundary or after a step."""
    return run.inbox.post(Command(verb, args, at=at))


class Killed(BaseException):
    """Nothing more happens in this process."""


def attempt(run: Run, *, killed_at: int | None = None, **config: Any) -> Walk:
    """Make one attempt in this process; whichever run it is in the end gets its final state."""
    from clew.jobs.choices import take_up
    from clew.jobs.loading import load_run_config

    number = run.states.queue()
    for state in (State.STARTING, State.RUNNING):
        run.states.move(state, attempt=number, owner=Owner.current())
    take_up(run, number)
    settings = load_run_config(run)
    made, end = Walk(settings), State.COMPLETED
    session = Session(run, settings, number)
    log = session.log

    def dying(step: int, /, *args: Any, **more: Any) -> None:
        log(step, *args, **more)
        if step == killed_at:
            raise Killed

    session.log = dying
    try:
        with session:
            go(session, made)
    except RunStopped as stopped:
        end = stopped.state
    except Killed:
        end = State.INTERRUPTED
    except BaseException:
        session.run.states.move(State.FAILED, attempt=session.attempt)
        raise
    session.run.states.move(end, attempt=session.attempt)
    return made
