"""Evaluate: ask a model a task's problems and score its answers."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from clew.config import Plugin, config
from clew.engines import Batch, Completion, Engine, EngineOptions, GenerationConfig, check_engine, load_engine
from clew.errors import DataError
from clew.jobs.base import CheckpointConfig, JobConfig, RuntimeConfig, job
from clew.jobs.estimates import bootstrap_interval, mean, pass_at_k, proportion_interval
from clew.models.quantization import Quantization
from clew.models.source import ModelReference, check_reference, resolve
from clew.session import Outcome, Session
from clew.tasks import Example, Task, require_parts

_RECORDS = "generations.jsonl"


@config
class EvalConfig(JobConfig):
    """A model, the problems of a task, and how to generate the answers."""

    model: ModelReference
    """A model or adapter folder, .gguf file, hub id, URL, or `run:NAME` with optional `@best`, `@last` or `@STEP`."""
    task: Annotated[Task, Plugin("task")]
    """Whose problems to ask."""
    split: Literal["train", "validation", "test"] = "test"
    """Which of the task's problems."""
    limit: Annotated[int, Field(ge=1)] | None = None
    """Ask only the first so many; null asks all."""
    samples: Annotated[int, Field(ge=1)] = 1
    """Answers to each problem; more than one needs a temperature. The first is the one that samples=1 would give."""
    pass_at: list[Annotated[int, Field(ge=1)]] | None = None
    """The k of pass@k, for metrics that are 0 or 1; null takes the powers of two up to samples, and samples."""
    generation: GenerationConfig = Field(default_factory=GenerationConfig)
    """How answers are generated."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """The type of the weights."""
    quantize: Quantization = "none"
    """Load the linear layers in 8 bits (int8) or 4 (nf4, fp4), by bitsandbytes."""
    engine: str = "transformers"
    """What generates: transformers, vllm, one that a package offers; auto is vllm on CUDA where it is installed."""
    checkpoint: CheckpointConfig = Field(default_factory=lambda: CheckpointConfig(every=10))
    """When to save; a step is a batch."""
    runtime: RuntimeConfig = Field(default_factory=RuntimeConfig)
    """Device and threads."""

    def __post_init__(self) -> None:
        if self.samples > 1 and self.generation.temperature == 0:
            raise ValueError(
                f"samples and generation.temperature: {self.samples} answers at temperature 0 are all the same one"
            )
        if (largest := max(self.pass_at or [1])) > self.samples:
            raise ValueError(
                f"pass_at and samples: pass@{largest} needs at least {largest} samples, not {self.samples}"
            )

    @property
    def ks(self) -> list[int]:
        """The k of every pass@k that is reported; none for a single sample, where pass@1 is the mean."""
        if self.pass_at is not None:
            return sorted(set(self.pass_at))
        powers = [1 << exponent for exponent in range(1, self.samples.bit_length())]
        return sorted({*powers, self.samples} - {1})


def _check(config: EvalConfig, runs: Path) -> None:
    check_reference(config.model, runs)
    check_engine(config.engine)
    require_parts(config.task, "problems", "metrics", needed_by="eval")
    _problems(config)  # reads all data, so that a bad row shows before a run is made of it


def _problems(config: EvalConfig) -> list[Example]:
    problems = list(config.task.problems(config.split))[: config.limit]
    if not problems:
        raise DataError(f"the task {type(config.task).__name__} has no problems in the split {config.split!r}")
    return problems


@job(check=_check)
def evaluate(session: Session[EvalConfig]) -> Outcome:
    """Generate answers to a task's problems and score them."""
    config = session.config
    problems = _problems(config)
    engine = _engine(session)
    # The samples of a problem lie a whole round apart, so that the first round is the one of a single sample.
    plan = engine.plan([problem.prompt for problem in problems] * config.samples, config.generation)

    records = Records()
    finished = session.attach(records, config.checkpoint)
    session.horizon(len(plan), unit="batch")
    for step, batch in enumerate(plan[finished:], start=finished + 1):
        completions = engine.complete(batch, config.generation)
        for record in score(config.task, problems, batch, completions):
            records.add(record)
            session.event("generation", step=step, **record)
        session.log(step, records.means())
        session.boundary(step)

    with session.artifact(_RECORDS) as path:
        records.write(path)
    metrics, intervals = records.summary(config.ks, config.seed)
    truncated = sum(record["finish"] == "length" for record in records)
    return Outcome(
        metrics={**metrics, "count": float(len(problems))},
        intervals=intervals,
        notes={
            "truncated": truncated,
            "samples": config.samples,
            "skipped_rows": len(config.task.skipped("problems", config.split)),
        },
    )


class Records:
    """The scored generations so far: the complete state of an evaluation."""

    def __init__(self) -> None:
        self._records: list[dict[str, Any]] = []
        # Metric to problem to the values of its answers.
        self._values: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self._records)

    def add(self, record: dict[str, Any]) -> None:
        """Add one generation."""
        self._records.append(record)
        for name, value in record["metrics"].items():
            self._values[name][record["index"]].append(float(value))

    def means(self) -> dict[str, float]:
        """Return the mean of each metric over the problems to which it applies, their answers averaged first."""
        return {name: mean(_shares(problems)) for name, problems in self._values.items()}

    def summary(self, ks: Sequence[int], seed: int) -> tuple[dict[str, float], dict[str, dict[str, Any]]]:
        """Return means and pass@k of every metric, and the 95 % intervals of all of them.

        Args:
            ks: Which pass@k; of metrics whose every value is 0 or 1. A problem with fewer than k answers to which the
                metric applies has none.
            seed: Of the bootstrap, which intervals of other metrics are made by.
        """
        metrics, intervals = self.means(), {}
        for name, problems in self._values.items():
            if any(value not in (0.0, 1.0) for values in problems.values() for value in values):
                intervals[name] = bootstrap_interval(_shares(problems), seed)
                continue
            most = max(map(len, problems.values()))
            intervals[name] = proportion_interval(_shares(problems), most)
            for k in ks:
                passes = [pass_at_k(len(one), int(sum(one)), k) for one in problems.values() if len(one) >= k]
                if passes:
                    metrics[f"{name}/pass@{k}"] = mean(passes)
                    intervals[f"{name}/pass@{k}"] = proportion_interval(passes, max(1, most // k))
        return metrics, {name: asdict(found) for name, found in intervals.items() if found is not None}

    def write(self, path: Path) -> None:
        """Write JSON lines in the order of the problems, and of the samples of each."""
        ordered = sorted(self, key=lambda one: (one["index"], one.get("sample", 0)))
        lines = [json.dumps(record, ensure_ascii=False) for record in ordered]
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

    def save(self, directory: Path) -> None:
        """Write the state; see :class:`clew.session.Surface`."""
        self.write(directory / _RECORDS)

    def load(self, directory: Path) -> None:
        """Take over the state that :meth:`save` wrote."""
        self._records.clear()
        self._values.clear()
        for line in (directory / _RECORDS).read_text(encoding="utf-8").split("\n"):
            if line:
                self.add(json.loads(line))


def _shares(problems: Mapping[int, Sequence[float]]) -> list[float]:
    return [mean(values) for values in problems.values()]


def _engine(session: Session[EvalConfig]) -> Engine:
    from clew.train.devices import prepare

    config = session.config
    device = prepare(config.runtime.device, config.runtime.threads, config.seed)
    source = resolve(config.model, session.run.path.parent)
    options = EngineOptions(dtype=config.dtype, device=device.type, quantize=config.quantize, seed=config.seed)
    return load_engine(config.engine, source, options)


def score(
    task: Task, problems: Sequence[Example], batch: Batch, completions: Iterable[Completion]
) -> Iterator[dict[str, Any]]:
    """Yield a record for each completion of a batch; its place is a problem's index, a round later for each sample."""
    for place, completion in zip(batch.indices, completions, strict=True):
        sample, index = divmod(place, len(problems))
        problem = problems[index]
        yield {
            "index": index,
            "sample": sample,
            "id": problem.id,
            "prompt": problem.prompt,
            "completion": completion.text,
            "reference": problem.completion,
            "metrics": {name: float(value) for name, value in task.metrics(problem, completion.text).items()},
            "tokens": len(completion.tokens),
            "finish": completion.finish,
        }
