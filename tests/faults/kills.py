"""Real runs whose process groups are killed at random moments, and which must end as if nothing had been."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from clew.checkpoints import CheckpointStore
from clew.jobs import create_job_run, load_job
from clew.runs import Run, State, Workspace
from clew.runs.files import file_digest
from clew.targets import LocalTarget
from clew.targets.local import LocalWorker
from clew.targets.watching import Silent, follow

SECONDS = 300.0
"""After which something that should have happened did not."""
_TASK = {"type": "arithmetic", "max_operand": 30, "train_size": 200, "validation_size": 20, "test_size": 20}


@dataclass(frozen=True)
class Case:
    """A kind of run.

    Attributes:
        config: Of its job.
        every: Steps between its checkpoints.
        spread: Seconds after an attempt's first step within which it is killed.
    """

    config: Mapping[str, Any]
    every: int
    spread: float
    needs_model: bool = False


def _pretrain(**runtime: int) -> dict[str, Any]:
    return {
        "job": "pretrain",
        "model": {"depth": 1},
        "data": {"seq_len": 32},
        "training": {"steps": 1500, "batch_size": 8, "log_every": 1, "validate_every": 100},
        "checkpoint": {"every": 10},
        "runtime": {"device": "cpu", "threads": 1, **runtime},
    }


CASES = {
    "pretrain": Case(_pretrain(), 10, 0.5),
    "pretrain-2": Case({**_pretrain(ranks=2), "mesh": {"preset": "ddp"}}, 10, 0.8),
    "sft": Case(
        {
            "job": "sft",
            "training": {"steps": 120, "batch_size": 8, "lr": 1e-3, "log_every": 1},
            "checkpoint": {"every": 5},
            "runtime": {"device": "cpu", "threads": 1},
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
            "runtime": {"device": "cpu", "threads": 1},
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
        step: The last finished step that the journal tells of.
        safe: The step of the newest checkpoint that verifies.
        when: What the run was doing: ``starting`` or ``training``.
    """

    step: int
    safe: int
    when: str

    @property
    def lost(self) -> int:
        """How many steps must be done again."""
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


def kill_once(run: Run, case: Case, moments: random.Random) -> Killed | None:
    """Start the next attempt and kill all its processes at a random moment; None when it came to its end before."""
    worker = LocalTarget().launch(run)
    group = os.getpgid(run.states.read().owner.pid)  # type: ignore[union-attr]
    attempt = run.states.read().attempt
    starting = moments.random() < 0.1
    deadline = time.monotonic() + SECONDS
    while not starting and not _has_stepped(run, attempt) and run.state is State.RUNNING:
        assert time.monotonic() < deadline, "it does not begin to train"
        time.sleep(0.02)
    _wait(worker, moments.uniform(0, 2.0 if starting else case.spread))
    if worker.poll() is State.COMPLETED:
        return None
    os.killpg(group, signal.SIGKILL)
    ended = follow(worker, Silent())
    if ended is State.COMPLETED:
        return None
    assert ended is State.INTERRUPTED, (ended, run.result)
    return _found(run, "training" if _has_stepped(run, attempt) else "starting")


def _has_stepped(run: Run, attempt: int) -> bool:
    path = run.path / "journal" / f"{attempt}-0.jsonl"
    return path.exists() and b'"metric"' in path.read_bytes()


def _wait(worker: LocalWorker, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and worker.poll() is not State.COMPLETED:
        time.sleep(0.005)


def _found(run: Run, when: str) -> Killed:
    """Look at what a kill has left: all that was promised must be there."""
    good, bad = CheckpointStore(run.checkpoints).newest_good()
    assert bad == {}, bad
    steps = [event["step"] for event in run.events("metric") if "loss" in event["values"]]
    assert len(steps) == len(set(steps)), "a step stands there twice"
    return Killed(max(steps, default=0), good.step if good else 0, when)


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
