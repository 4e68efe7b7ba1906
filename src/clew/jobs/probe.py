"""A task's own evaluation of a model that is being trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from clew.config import BETWEEN_ATTEMPTS, config
from clew.engines.base import Engine, GenerationConfig
from clew.errors import DataError, UserError, did_you_mean
from clew.jobs.eval import Records, score
from clew.tasks import Example, Task, require_parts


@config
class EvaluateConfig:
    """A small evaluation by the task itself while the model is trained."""

    every: Annotated[int, Field(ge=1), BETWEEN_ATTEMPTS] = 200
    """Evaluate after this many steps, and at the end."""
    split: Literal["train", "validation", "test"] = "validation"
    """Which of the task's problems."""
    limit: Annotated[int, Field(ge=1)] | None = 64
    """Ask only the first so many; null asks all."""
    generation: GenerationConfig = Field(default_factory=GenerationConfig)
    """How answers are generated."""
    best_by: str | None = None
    """The metric that decides which checkpoint is @best, instead of the validation loss."""
    lower_is_better: bool = False
    """Whether a lower value of best_by is the better one."""


def asked(task: Task, config: EvaluateConfig, job: str) -> list[Example]:
    """Return the problems that are asked while a model is trained.

    Args:
        task: Whose problems.
        config: Which.
        job: What trains the model, for the error.

    Raises:
        MissingPart: If the task has no problems or no metrics at all.
        DataError: If there are no problems in the split.
        UserError: If the task does not measure ``config.best_by``.
    """
    require_parts(task, "problems", "metrics", needed_by=f"evaluate of {job}")
    problems = list(task.problems(config.split))[: config.limit]
    if not problems:
        raise DataError(f"the task {type(task).__name__} has no problems in the split {config.split!r}")
    known = {name for one in problems for name in task.metrics(one, one.completion or "")}
    if config.best_by is not None and config.best_by not in known:
        raise UserError(
            f"evaluate.best_by is {config.best_by!r}, which the task {type(task).__name__} does not measure",
            hint=did_you_mean(config.best_by, known),
        )
    return problems


class Probe:
    """Asks a task's problems of the model that is being trained; it changes nothing about the training.

    Args:
        task: Whose problems.
        problems: From :func:`asked`.
        config: How they are asked.
        engine: Generates with the model's present weights; it leaves the model as it found it.

    Raises:
        UserError: If a problem does not fit into the model.
    """

    def __init__(self, task: Task, problems: Sequence[Example], config: EvaluateConfig, engine: Engine) -> None:
        self._task = task
        self._engine = engine
        self._generation = config.generation
        self._problems = problems
        self._plan = self._engine.plan([one.prompt for one in problems], config.generation)

    def measure(self) -> dict[str, float]:
        """Return the mean of each metric, under the name ``eval/METRIC``."""
        from clew.checkpoints.rng import kept_rng

        records = Records()
        with kept_rng():  # an engine draws from generators of its own, but a task may draw from those of the training
            for batch in self._plan:
                completions = self._engine.complete(batch, self._generation)
                for record in score(self._task, self._problems, batch, completions):
                    records.add(record)
        return {f"eval/{name}": value for name, value in records.means().items()}
