"""A small workspace with fixed clocks and hashes, made through the interfaces that workers use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from clew.reports import StageView
from clew.runs import Artifact, Failure, JobResult, JournalWriter, Run, RunInfo, State, create_run

START = 1_769_870_000.0  # 2026-01-31 14:33 UTC
ENVIRONMENT = {
    "python": "3.11.9",
    "platform": "Linux-6.8-x86_64",
    "machine": "x86_64",
    "cpus": 4,
    "libraries": {"torch": "2.13.0", "transformers": "5.23.0"},
}


class Clock:
    """Seconds that pass only when they are asked for."""

    def __init__(self, start: float = START, tick: float = 0.5) -> None:
        self.now = start
        self.tick = tick

    def __call__(self) -> float:
        self.now += self.tick
        return self.now


def make_run(root: Path, name: str, job: str, **info: Any) -> Run:
    """A run directory in state created."""
    identity = RunInfo(name, job, config_hash="c0ffee" * 10, code_hash="beef" * 16, uid="U", created=START, **info)
    return create_run(root / "runs", identity, f"job: {job}\n", {})


def write_events(run: Run, events: Iterable[Mapping[str, Any]], attempt: int = 1, clock: Clock | None = None) -> None:
    """Write one attempt's journal; it starts where the event ``restore`` says, else at 0."""
    journal = JournalWriter(run.path / "journal", attempt, clock=clock or Clock())
    journal.write("attempt", number=attempt, environment=ENVIRONMENT)
    for event in events:
        journal.write(**event)
    journal.close()


def finish(
    run: Run,
    state: State = State.COMPLETED,
    *,
    metrics: Mapping[str, float] | None = None,
    artifacts: Mapping[str, Artifact] | None = None,
    intervals: Mapping[str, dict[str, Any]] | None = None,
    notes: Mapping[str, Any] | None = None,
    failure: Failure | None = None,
    seconds: float = 75.0,
    attempts: int = 1,
) -> Run:
    """Bring a run to its end, as the worker of its last attempt does."""
    for attempt in range(1, attempts + 1):
        run.states.queue()
        run.states.move(State.STARTING, attempt=attempt)
        run.states.move(State.RUNNING, attempt=attempt)
        run.states.move(state if attempt == attempts else State.INTERRUPTED, attempt=attempt)
    JobResult(
        run.id,
        run.info.job,
        state.value,
        seconds,
        attempts,
        metrics=dict(metrics or {}),
        artifacts=dict(artifacts or {}),
        intervals=dict(intervals or {}),
        notes=dict(notes or {}),
        failure=failure,
        environment=ENVIRONMENT if state is State.COMPLETED else {},
    ).save(run.path)
    return run


def restore(step: int) -> dict[str, Any]:
    return {"kind": "restore", "step": step}


def metric(step: int, **values: float) -> dict[str, Any]:
    return {"kind": "metric", "step": step, "values": values}


def generation(index: int, completion: str, exact: float, **more: Any) -> dict[str, Any]:
    base = {
        "kind": "generation",
        "step": 1 + index // 4,
        "index": index,
        "id": f"test-{index}",
        "prompt": f"{index} + {index} =",
        "completion": completion,
        "reference": str(2 * index),
        "metrics": {"exact": exact, "length": float(len(completion))},
    }
    return {**base, **more}


def rollout(step: int, rewards: Mapping[str, float | None], completion: str = "4") -> dict[str, Any]:
    total = sum(value or 0.0 for value in rewards.values())
    return {
        "kind": "rollout",
        "step": step,
        "id": f"train-{step}",
        "prompt": "2 + 2 =",
        "completion": completion,
        "rewards": dict(rewards),
        "reward": total,
    }


def make_eval(root: Path, name: str, num_right: int, count: int = 40) -> Run:
    """An evaluation in which the first ``num_right`` of the problems were solved."""
    run = make_run(root, name, "eval")
    records = [
        generation(index, str(2 * index if index < num_right else 7), float(index < num_right))
        for index in range(count)
    ]
    write_events(run, [restore(0), *sorted(records, key=lambda one: -one["index"])])
    length = sum(record["metrics"]["length"] for record in records) / count
    return finish(run, metrics={"exact": num_right / count, "length": length, "count": float(count)}, seconds=12.25)


def make_sft(root: Path, name: str = "demo.sft") -> Run:
    """Fine-tuning whose first attempt was killed after step 30; the second went on from step 20."""
    run = make_run(root, name, "sft")
    first = [metric(step, loss=9.0 if step > 20 else 3.0 / step**0.5, lr=1e-3) for step in range(5, 31, 5)]
    second = [metric(step, loss=3.0 / step**0.5, lr=1e-3) for step in range(25, 61, 5)]
    second.insert(4, metric(40, eval_loss=0.61))
    second.append(metric(60, eval_loss=0.52))
    write_events(run, [restore(0), metric(20, eval_loss=0.8), *first])
    write_events(run, [restore(20), *second], attempt=2, clock=Clock(START + 100))
    artifact = Artifact("artifacts/adapter", "ab" * 32, 1_234_567)
    return finish(run, metrics={"train_loss": 0.387, "val_loss": 0.52}, artifacts={"adapter": artifact}, attempts=2)


def make_grpo(root: Path, name: str = "demo.grpo") -> Run:
    """Reinforcement learning that ran out of memory."""
    run = make_run(root, name, "grpo")
    events: list[dict[str, Any]] = [restore(0)]
    for step in range(1, 11):
        good = step / 10
        events += [rollout(step, {"exact": good, "format": 1.0}), rollout(step, {"exact": None, "format": 0.5}, "five")]
        events.append(metric(step, loss=0.01 * (-1) ** step, reward=(good + 1.5) / 2))
    events.append({"kind": "failure", "error": "MemoryError", "reason": "no `memory` | left"})
    write_events(run, events)
    failure = Failure("MemoryError", "no `memory` | left", ["step 10", "```", "Traceback <most recent>"])
    return finish(run, State.FAILED, failure=failure)


def make_pipeline(root: Path) -> list[StageView]:
    """base is measured, tuned, measured; GRPO fails, so the last evaluation never starts."""
    return [
        StageView("eval_base", "eval", make_eval(root, "demo.eval_base", 3)),
        StageView("sft", "sft", make_sft(root)),
        StageView("eval_sft", "eval", make_eval(root, "demo.eval_sft", 31), ("sft",)),
        StageView("grpo", "grpo", make_grpo(root), ("sft",)),
        StageView("eval_grpo", "eval", None, ("grpo",)),
    ]
