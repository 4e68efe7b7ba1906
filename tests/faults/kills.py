"""Real runs whose process groups are killed at random moments, and which must end as if nothing had been."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import counting

from clew.checkpoints import CheckpointStore
from clew.jobs import create_job_run, load_job
from clew.runs import ACTIVE, Owner, Run, State, Workspace
from clew.runs.files import file_digest
from clew.targets import LocalTarget
from clew.targets.local import LocalWorker
from clew.targets.watching import Silent, follow

SECONDS = 300.0
"""After which something that should have happened did not."""
STARTING = 0.1
"""The share of attempts that are killed while they start."""
_TASK = {"type": "arithmetic", "max_operand": 30, "train_size": 200, "validation_size": 20, "test_size": 20}
_CPU = {"device": "cpu", "threads": 1}


@dataclass(frozen=True)
class Case:
    """A kind of run.

    Attributes:
        config: Of its job.
        every: Steps between its checkpoints; as many finished steps may a kill cost.
        spread: Seconds after an attempt's first step within which it is killed.
        ranks: Processes that train together.
        needs_model: Whether it begins with a model.
        imports: Seconds more where the worker imports everything itself: its first save takes that long.
    """

    config: Mapping[str, Any]
    every: int
    spread: float
    ranks: int = 1
    needs_model: bool = False
    imports: float = 2.0


def _pretrain(*, waits: bool, ranks: int = 1) -> Case:
    config = {
        "job": "pretrain",
        "model": {"depth": 1},
        "data": {"seq_len": 32},
        "training": {"steps": 1500, "batch_size": 8, "log_every": 1, "validate_every": 100},
        "checkpoint": {"every": 10, "asynchronous": not waits},
        "runtime": {**_CPU, "ranks": ranks},
        **({"mesh": {"preset": "ddp"}} if ranks > 1 else {}),
    }
    return Case(config, 10, 0.6, ranks)


CASES = {
    "pretrain": _pretrain(waits=False),
    "pretrain-sync": _pretrain(waits=True),
    "pretrain-2": _pretrain(waits=False, ranks=2),
    "pretrain-2-sync": _pretrain(waits=True, ranks=2),
    # Hugging Face's Trainer writes its own checkpoints, from the live model: the training always waits for them.
    "sft": Case(
        {
            "job": "sft",
            "training": {"steps": 120, "batch_size": 8, "lr": 1e-3, "log_every": 1},
            "checkpoint": {"every": 5},
            "runtime": _CPU,
        },
        5,
        1.0,
        needs_model=True,
    ),
    "grpo": Case(
        {
            "job": "grpo",
            "training": {"steps": 60, "prompts_per_step": 2, "generations": 4, "lr": 1e-3, "beta": 0.05},
            "sampling": {"max_new_tokens": 6},
            "checkpoint": {"every": 4},
            "runtime": _CPU,
        },
        4,
        1.5,
        needs_model=True,
    ),
}


@dataclass(frozen=True)
class Killed:
    """What was found after one kill.

    Attributes:
        step: The last step that the attempt had finished; 0 when it had finished none.
        safe: The step of the newest checkpoint that verifies.
        when: What the run was doing: ``starting`` or ``training``.
        problems: What does not hold of that which was promised.
    """

    step: int
    safe: int
    when: str
    problems: tuple[str, ...] = ()

    @property
    def lost(self) -> int:
        """How many finished steps must be done again."""
        return max(0, self.step - self.safe)


def model(folder: Path) -> str:
    """A small random model in the layout of Hugging Face."""
    made = folder / "model"
    if not made.exists():
        import torch

        from clew.models.config import ModelConfig
        from clew.models.decoder import Decoder
        from clew.models.exchange import save_huggingface
        from clew.models.tokenizers import ByteTokenizer, vocab_size

        torch.manual_seed(0)
        tokenizer = ByteTokenizer().build([])
        save_huggingface(Decoder(ModelConfig(depth=1), vocab_size(tokenizer), context=64), tokenizer, made)
    return str(made)


def make(workspace: Workspace, case: str, name: str, steps: int | None = None) -> Run:
    """Make a run of a case, or find it; with as many steps as the case has, if no other number is given."""
    if (workspace.runs / name / "run.json").is_file():
        return workspace.find_run(name)
    config = {**CASES[case].config, "name": name, "task": _TASK}
    config["job"] = f"{counting.__file__}:{config['job']}"
    if steps is not None:
        config["training"] = {**config["training"], "steps": steps}
    if CASES[case].needs_model:
        config["model"] = model(workspace.root)
    return create_job_run(workspace, load_job(config))


def finish(run: Run) -> None:
    """Let a run come to its end."""
    if run.state is not State.COMPLETED:
        ended = follow(LocalTarget().launch(run), Silent())
        assert ended is State.COMPLETED, run.result


class Nursery:
    """Starts workers by a process that has imported everything already; see ``nursery.py``."""

    def __init__(self) -> None:
        environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1"}
        self._process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("nursery.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        self._lock = threading.Lock()

    def launch(self, run: Run) -> LocalWorker:
        """Start the next attempt at a run, or adopt the worker that is alive; return when it has taken the run."""
        if run.state in ACTIVE:
            return LocalWorker(run, run.states.read().attempt)
        run.make_folders()
        attempt = run.states.queue()
        run.states.move(State.STARTING, attempt=attempt)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._lock:
            asked = {"run": str(run.path), "attempt": attempt, "log": str(run.log_path(attempt))}
            self._process.stdin.write(json.dumps(asked) + "\n")
            self._process.stdin.flush()
            assert self._process.stdout.readline().strip(), "nobody answers"
        began = time.monotonic()
        while run.states.read().state is State.STARTING:
            assert time.monotonic() - began < SECONDS, "the worker does not take the run"
            time.sleep(0.005)
        return LocalWorker(run, attempt)

    def __enter__(self) -> Nursery:
        return self

    def __exit__(self, *_: object) -> None:
        """Ask for nothing more; the workers are on their own."""
        self._process.communicate()


def kill_once(run: Run, case: Case, moments: random.Random, nursery: Nursery | None = None) -> Killed | None:
    """Start the next attempt and kill all its processes at a random moment; None when it came to its end before.

    Args:
        run: The run.
        case: What it is.
        moments: Chooses the moment: while the attempt starts, or after its first step.
        nursery: Starts workers of runs of one process; not those that are killed while they start.
    """
    if run.state is State.COMPLETED:
        return None
    is_starting, seconds = moments.random() < STARTING, moments.random()
    before = _safe_step(run)
    borne = nursery is not None and case.ranks == 1 and not is_starting
    worker = nursery.launch(run) if nursery is not None and borne else LocalTarget().launch(run)
    now = run.states.read()
    if is_starting:
        _wait(worker, 2.0 * seconds)
    else:
        began = time.monotonic()
        while counting.finished(run, now.attempt) == 0 and worker.poll() is State.RUNNING:
            if time.monotonic() - began > SECONDS:
                _killed(worker, now.owner)
                return Killed(0, before, "starting", (f"it did not begin to train within {SECONDS:.0f} s",))
            time.sleep(0.01)
        _wait(worker, (case.spread + (0.0 if borne else case.imports)) * seconds)
    ended = worker.poll()
    if ended is not State.COMPLETED:
        ended = _killed(worker, now.owner)
    return None if ended is State.COMPLETED else _found(run, now.attempt, ended, before, case)


def _wait(worker: LocalWorker, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0 and worker.poll() is not State.COMPLETED:
        time.sleep(min(0.02, left))


def _killed(worker: LocalWorker, owner: Owner | None) -> State:
    """Kill all processes of an attempt, unless it has ended meanwhile, and return what is said of it then."""
    with suppress(ProcessLookupError):
        if owner is not None and owner.is_alive():
            os.killpg(os.getpgid(owner.pid), signal.SIGKILL)
    return follow(worker, Silent())


def _safe_step(run: Run) -> int:
    good, _ = CheckpointStore(run.checkpoints).newest_good()
    return good.step if good else 0


def _found(run: Run, attempt: int, ended: State, before: int, case: Case) -> Killed:
    """Look at what a kill has left, of an attempt that began where ``before`` was safe."""
    good, bad = CheckpointStore(run.checkpoints).newest_good()
    safe, step = good.step if good else 0, counting.finished(run, attempt)
    lost = max(0, step - safe)
    steps = [event["step"] for event in run.events("metric") if "loss" in event["values"]]
    wrong = {
        f"it ended as {ended}: {run.result and run.result.failure}": ended is not State.INTERRUPTED,
        f"checkpoints are damaged: {bad}": bool(bad),
        f"step {before} was safe, and now {safe} is": safe < before,
        f"{lost} steps are lost, and {case.every} may be": lost > case.every,
        "a step stands in the journal twice": len(steps) != len(set(steps)),
        "a step that is safe is not in the journal": not set(range(1, safe + 1)) <= set(steps),
    }
    when = "training" if step else "starting"
    return Killed(step, safe, when, tuple(text for text, is_so in wrong.items() if is_so))


def differences(whole: Run, killed: Run) -> list[str]:
    """Compare two runs that have ended: their weights bit by bit, their metrics, and their journals."""
    found = []
    if _weights(whole) != _weights(killed):
        found.append("the weights differ")
    if whole.result is None or killed.result is None or whole.result.metrics != killed.result.metrics:
        found.append("the results differ")
    if _numbers(whole) != _numbers(killed):
        found.append("the journals differ")
    return found


def _weights(run: Run) -> dict[str, str]:
    return {path.relative_to(run.path).as_posix(): file_digest(path) for path in run.artifacts.rglob("*.safetensors")}


def _numbers(run: Run) -> list[str]:
    """All that was logged, without what depends on the clock."""
    clocks = ("time", "second", "runtime")
    return [
        json.dumps([event["step"], {key: v for key, v in event["values"].items() if not any(c in key for c in clocks)}])
        for event in run.events("metric")
    ]


def upper_bound(events: int, trials: int, confidence: float = 0.95) -> float:
    """The exact one-sided upper limit of a probability, for no event in so many trials (Clopper and Pearson, 1934).

    It is ``1 - (1 - confidence) ** (1 / trials)``; the rule of three, ``3 / trials``, is close to it.

    Raises:
        ValueError: If something has happened: then it is not this formula.
    """
    if events or trials < 1:
        raise ValueError("this is the limit of what has never happened")
    return 1 - (1 - confidence) ** (1 / trials)


def as_json(killed: Killed) -> dict[str, Any]:
    """Return the JSON form."""
    return {**asdict(killed), "lost": killed.lost}
