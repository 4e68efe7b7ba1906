"""What a step pays for the whole live layer: metrics logged, the inbox looked at, digests at their default interval.

The same training goes on in one process, some steps with the layer and as many without, in turn. On a busy machine
single steps differ by more than is promised here. So what is promised is added up of its parts: what the loop waits for
in the layer's calls (the median, since a process that is put aside in one of them says nothing about it), a digest's
share, and the processor time of the layer's threads; over the processor time of a step.
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
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from common import Figure
from plain_loop import Clocked, Training
from torch import Tensor

from clew.checkpoints.digest import state_digest, tensors_digest
from clew.runs import Owner, Run, RunInfo, State, create_run
from clew.session import CheckpointConfig, Session
from clew.session.surface import LiveConfig

STEPS, PAIRS = 100, 12
DIGEST_EVERY = LiveConfig().digest_every or 0
HERE = Path(__file__).parent
OTHER = HERE.parent / ".venv-onthefly"
OTHER_VERSION = "onthefly-ai==0.1.4"


class Live:
    """The loop's state, as far as a digest needs it."""

    def __init__(self, training: Training) -> None:
        self._training = training

    def save(self, directory: Path) -> None:
        """Write one byte, for a checkpoint has files."""
        (directory / "state").write_text("0")

    def load(self, directory: Path) -> None:
        """Take over nothing."""

    def digests(self) -> Mapping[str, str]:
        """Return hashes of weights and optimizer."""
        return {
            "weights": tensors_digest(self._training.model.state_dict().items()),
            "optimizer": state_digest(self._training.optimizer.state_dict()),
        }


class Layer:
    """The calls of a loop to its session, and how long each takes, in seconds."""

    def __init__(self, session: Session[None], training: Training) -> None:
        self._session = session
        self._training = training
        self.step = 0
        self.usual: list[float] = []
        self.with_digest: list[float] = []

    def after(self, loss: Tensor, norm: Tensor) -> None:
        """Do what a live loop does after a step."""
        self.step += 1
        # A digest takes long enough for the process to be put aside in it, and is seldom: only its own work counts.
        is_usual = bool(self.step % DIGEST_EVERY)
        clock = time.perf_counter if is_usual else time.thread_time
        began = clock()
        lr = self._training.optimizer.param_groups[0]["lr"]
        self._session.log(self.step, loss=loss, grad_norm=norm, lr=lr)
        self._session.boundary(self.step)
        (self.usual if is_usual else self.with_digest).append(clock() - began)

    def forget(self) -> None:
        """Begin to measure."""
        self.usual.clear()
        self.with_digest.clear()

    def cost(self) -> tuple[float, float]:
        """Return what a step pays for the calls, and for its share of a digest, in seconds."""
        usual = statistics.median(self.usual)
        return usual, (statistics.median(self.with_digest) - usual) / DIGEST_EVERY


def main() -> None:
    """Print the cost of both layers."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        run, attempt = _running(Path(folder))
        with Session(run, None, attempt) as session:
            training = Training()
            session.attach(Live(training), CheckpointConfig(every=10**9))
            _measure(training, Layer(session, training))
    other = _other()
    if other is not None:
        what = f"the same loop with {OTHER_VERSION.replace('==', ' ')}, headless, of a step"
        Figure(what, 100 * other, "%").print()


def _running(folder: Path) -> tuple[Run, int]:
    run = create_run(folder, RunInfo("bench", "none"), "job: none\n", {})
    attempt = run.states.queue()
    run.states.move(State.STARTING, attempt=attempt)
    run.states.move(State.RUNNING, attempt=attempt, owner=Owner.current())
    return run, attempt


def _measure(training: Training, layer: Layer) -> None:
    plain, live = Turns(), Turns()
    for pair in range(-2, PAIRS):  # the first two warm up
        if pair == 0:
            plain, live = Turns(), Turns()
            layer.forget()
        for is_live in ((False, True), (True, False))[pair % 2]:
            (live if is_live else plain).add(training, layer if is_live else None)
    step = plain.processor / (PAIRS * STEPS)
    calls, digest = layer.cost()
    threads = (live.threads + plain.threads) / (PAIRS * STEPS)  # what a turn has left to write, the next one pays for
    extra = statistics.median(longer / usual - 1 for longer, usual in zip(live.means, plain.means, strict=True))
    Figure("a step of the plain loop that live layers are measured by", step * 1e3, "ms").print()
    Figure("the whole live layer, of that step", 100 * (calls + digest + threads) / step, "%", 0.5).print()
    Figure("of which: log and boundary", calls * 1e6, "µs").print()
    Figure("of which: a digest every 100 steps", digest * 1e6, "µs").print()
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

    def add(self, training: Training, layer: Layer | None) -> None:
        """Take a turn."""
        batches = Clocked(STEPS)
        own, process = time.thread_time(), time.process_time()
        for batch in batches:
            loss, norm = training.step(batch)
            if layer is not None:
                layer.after(loss, norm)
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
