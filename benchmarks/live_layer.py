"""What a step pays for the whole live layer: a plain loop in ``clew.session``, with everything at its defaults.

That is: metrics noted at every step and logged at every tenth, commands heard, a digest of weights and optimizer at
every 500th. Two trainings alike go on in one process, some steps of one and as many of the other, in turn. On a busy
machine single steps differ by more than is promised here. So what is promised is added up of its parts: what the loop
waits for in the layer's call (the median of each kind of step, since a process that is put aside in one of them
says nothing about it, less what it takes to look at the clock) and the processor time of the layer's threads; over
the processor time of a step.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from common import Figure
from plain_loop import Clocked, Training
from torch import Tensor

import clew
from clew.live.plain import Live
from clew.session.surface import LiveConfig

STEPS, PAIRS = 250, 12
LOG_EVERY, DIGEST_EVERY = 10, LiveConfig().digest_every or 0
PERIODS = (DIGEST_EVERY, LOG_EVERY, 1)
HERE = Path(__file__).parent
OTHER = HERE.parent / ".venv-onthefly"
OTHER_VERSION = "onthefly-ai==0.1.4"


class Layer:
    """The calls of a loop to its session, and how long each takes, in seconds."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._taken: dict[int, list[float]] = {}
        self._nothing: list[float] = []

    def after(self, loss: Tensor, norm: Tensor) -> None:
        """Do what a live loop does after a step."""
        period = next(period for period in PERIODS if (self._live.step_number + 1) % period == 0)
        # A digest takes long enough for the process to be put aside in it, and is seldom: only its own work counts.
        clock = time.thread_time if period == DIGEST_EVERY else time.perf_counter
        began = clock()
        self._live.step(loss=loss, grad_norm=norm)
        self._taken.setdefault(period, []).append(clock() - began)

    def without(self) -> None:
        """Do what a loop without the layer does after a step: nothing, which takes the clock some time as well."""
        began = time.perf_counter()
        self._nothing.append(time.perf_counter() - began)

    def forget(self) -> None:
        """Begin to measure."""
        self._taken.clear()
        self._nothing.clear()

    def costs(self) -> dict[int, float]:
        """Return what a step pays for being one, and for its share of what comes with longer periods, in seconds."""
        usual = statistics.median(self._taken[1])
        less = dict.fromkeys(PERIODS, usual) | {1: statistics.median(self._nothing)}
        return {period: (statistics.median(taken) - less[period]) / period for period, taken in self._taken.items()}


def main() -> None:
    """Print the cost of both layers."""
    torch.set_num_threads(1)
    plain, training = Training(), Training()
    with (
        tempfile.TemporaryDirectory() as folder,
        clew.session(
            "bench", model=training.model, optimizer=training.optimizer, checkpoint=10**9, workspace=folder
        ) as live,
    ):
        _measure(plain, training, Layer(live))
    other = _other()
    if other is not None:
        Figure(f"the same loop with {OTHER_VERSION.replace('==', ' ')}, headless, of a step", 100 * other, "%").print()


def _measure(training: Training, steered: Training, layer: Layer) -> None:
    plain, live = Turns(), Turns()
    for pair in range(-2, PAIRS):  # the first two warm up
        if pair == 0:
            plain, live = Turns(), Turns()
            layer.forget()
        for is_live in ((False, True), (True, False))[pair % 2]:
            live.add(steered, layer.after) if is_live else plain.add(training, lambda *_: layer.without())
    step = plain.processor / (PAIRS * STEPS)
    costs = layer.costs()
    alone = Turns()  # of turns in turn, the threads of one would write what the other left
    for _ in range(PAIRS):
        alone.add(steered, layer.after)
    threads = alone.threads / (PAIRS * STEPS)
    extra = statistics.median(longer / usual - 1 for longer, usual in zip(live.means, plain.means, strict=True))
    Figure("a step of the plain loop that live layers are measured by", step * 1e3, "ms").print()
    Figure("the whole live layer, of that step", 100 * (sum(costs.values()) + threads) / step, "%", 0.5).print()
    Figure("of which: every step", costs[1] * 1e6, "µs").print()
    Figure(f"of which: a log every {LOG_EVERY} steps", costs[LOG_EVERY] * 1e6, "µs").print()
    Figure(f"of which: a digest every {DIGEST_EVERY} steps", costs[DIGEST_EVERY] * 1e6, "µs").print()
    Figure("of which: threads that write", threads * 1e6, "µs").print()
    Figure("the loop with the live layer against without it, turn by turn", 100 * extra, "%").print()


@dataclass
class Turns:
    """Turns of one kind.

    Attributes:
        means: Seconds of a step, for each turn.
        processor: Processor seconds of the loop, in all turns.
        threads: Those of everything beside it.
    """

    means: list[float] = field(default_factory=list)
    processor: float = 0.0
    threads: float = 0.0

    def add(self, training: Training, after: Callable[[Tensor, Tensor], None]) -> None:
        """Take a turn."""
        batches = Clocked(STEPS)
        own, process = time.thread_time(), time.process_time()
        for batch in batches:
            loss, norm = training.step(batch)
            after(loss, norm)
        own, process = time.thread_time() - own, time.process_time() - process
        self.means.append(statistics.mean(batches.seconds()))
        self.processor += own
        self.threads += process - own


def _other() -> float | None:
    """How much longer a step takes with the other layer, in an environment of its own; None where it does not run."""
    python = OTHER / "bin/python"
    if not python.exists():
        _make_environment()
    done = subprocess.run(
        [python, HERE / "onthefly_layer.py"], stdout=subprocess.PIPE, text=True, check=False, env=dict(os.environ)
    )
    if done.returncode != 0:
        print(f"{OTHER_VERSION} did not run: exit code {done.returncode}", file=sys.stderr)
        return None
    return float(json.loads(done.stdout.splitlines()[-1])["extra"])


def _make_environment() -> None:
    """An environment with the other layer, and with the PyTorch of ours: both are measured with the same one."""
    venv.create(OTHER, with_pip=True)
    (site,) = OTHER.glob("lib/python*/site-packages")
    (site / "ours.pth").write_text(sysconfig.get_path("purelib") + "\n")
    subprocess.run([OTHER / "bin/python", "-m", "pip", "install", "--quiet", "--no-deps", OTHER_VERSION], check=True)


if __name__ == "__main__":
    main()
