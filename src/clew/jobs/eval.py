"""Evaluate: ask a model a task's problems and score its answers."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from clew.config import Plugin, config
from clew.engines.base import Batch, Completion, GenerationConfig
from clew.errors import DataError
from clew.jobs.base import CheckpointConfig, JobConfig, RuntimeConfig, job
from clew.models.source import ModelReference, check_reference, resolve
from clew.session import Outcome, Session
from clew.tasks import Example, Task, require_parts

if TYPE_CHECKING:
    from clew.engines.transformers import TransformersEngine

_RECORDS = "generations.jsonl"


@config
class EvalConfig(JobConfig):
    """A model, the problems of a task, and how to generate the answers."""

    model: ModelReference
    """A model or adapter folder, a .gguf file, a hub id, or `run:NAME` with an optional `@best`, `@last` or `@STEP`."""
    task: Annotated[Task, Plugin("task")]
    """Whose problems to ask."""
    split: Literal["train", "validation", "test"] = "test"
    """Which of the task's problems."""
    limit: Annotated[int, Field(ge=1)] | None = None
    """Ask only the first so many; null asks all."""
    generation: GenerationConfig = Field(default_factory=GenerationConfig)
    """How answers are generated."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """The type of the weights."""
    checkpoint: CheckpointConfig = Field(default_factory=lambda: CheckpointConfig(every=10))
    """When to save; a step is a batch."""
    runtime: RuntimeConfig = Field(default_factory=RuntimeConfig)
    """Device and threads."""


def _check(config: EvalConfig, runs: Path) -> None:
    check_reference(config.model, runs)
    require_parts(config.task, "problems", "metrics", needed_by="eval")


@job(check=_check)
def evaluate(session: Session[EvalConfig]) -> Outcome:
    """Generate answers to a task's problems and score them."""
    config = session.config
    problems = list(config.task.problems(config.split))[: config.limit]
    if not problems:
        raise DataError(f"the task {type(config.task).__name__} has no problems in the split {config.split!r}")
    engine = _engine(session)
    plan = engine.plan([problem.prompt for problem in problems], config.generation)

    records = Records()
    finished = session.attach(records, config.checkpoint)
    session.horizon(len(plan), unit="batch")
    for step, batch in enumerate(plan[finished:], start=finished + 1):
        completions = engine.complete(batch, config.generation)
        for record in _score(config.task, problems, batch, completions):
            records.add(record)
            session.event("generation", step=step, **record)
        session.log(step, records.means())
        session.boundary(step)

    with session.artifact(_RECORDS) as path:
        records.write(path)
    truncated = sum(record["finish"] == "length" for record in records)
    return Outcome(metrics={**records.means(), "count": float(len(problems))}, notes={"truncated": truncated})


class Records:
    """The scored generations so far: the complete state of an evaluation."""

    def __init__(self) -> None:
        self._records: list[dict[str, Any]] = []

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self._records)

    def add(self, record: dict[str, Any]) -> None:
        """Add one generation."""
        self._records.append(record)

    def means(self) -> dict[str, float]:
        """Return the mean of each metric over the examples to which it applies."""
        values: dict[str, list[float]] = defaultdict(list)
        for record in self._records:
            for name, value in record["metrics"].items():
                values[name].append(value)
        return {name: sum(some) / len(some) for name, some in values.items()}

    def write(self, path: Path) -> None:
        """Write JSON lines in the order of the problems."""
        lines = [json.dumps(record, ensure_ascii=False) for record in sorted(self, key=lambda one: one["index"])]
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

    def save(self, directory: Path) -> None:
        """Write the state; see :class:`clew.session.Surface`."""
        self.write(directory / _RECORDS)

    def load(self, directory: Path) -> None:
        """Take over the state that :meth:`save` wrote."""
        lines = (directory / _RECORDS).read_text(encoding="utf-8").split("\n")
        self._records = [json.loads(line) for line in lines if line]


def _engine(session: Session[EvalConfig]) -> TransformersEngine:
    from clew.engines.transformers import TransformersEngine
    from clew.models.loading import load_model, load_tokenizer
    from clew.train.devices import prepare

    config = session.config
    device = prepare(config.runtime.device, config.runtime.threads, config.seed)
    source = resolve(config.model, session.run.path.parent)
    return TransformersEngine(load_model(source, config.dtype, device), load_tokenizer(source), seed=config.seed)


def _score(
    task: Task, problems: list[Example], batch: Batch, completions: Iterable[Completion]
) -> Iterator[dict[str, Any]]:
    for index, completion in zip(batch.indices, completions, strict=True):
        problem = problems[index]
        yield {
            "index": index,
            "id": problem.id,
            "prompt": problem.prompt,
            "completion": completion.text,
            "reference": problem.completion,
            "metrics": {name: float(value) for name, value in task.metrics(problem, completion.text).items()},
            "tokens": len(completion.tokens),
            "finish": completion.finish,
        }
