"""A task's own evaluation of a model that is being trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from clew.config import config
from clew.engines.base import GenerationConfig
from clew.errors import DataError, UserError, did_you_mean
from clew.jobs.eval import Records, score
from clew.tasks import Task

if TYPE_CHECKING:
    from clew.models.decoder import Decoder


@config
class EvaluateConfig:
    """A small evaluation by the task itself while the model is trained."""

    every: Annotated[int, Field(ge=1)] = 200
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


class Probe:
    """Asks a task's problems of the model that is being trained; it changes nothing about the training.

    Args:
        task: Whose problems.
        config: Which, and how.
        model: The decoder.
        tokenizer: Its tokenizer.
        seed: Seed of sampling, where there is sampling.

    Raises:
        DataError: If there are no problems.
        UserError: If a problem does not fit into the model, or the task does not measure ``config.best_by``.
    """

    def __init__(self, task: Task, config: EvaluateConfig, model: Decoder, tokenizer: Any, seed: int) -> None:
        from clew.engines.native import native_engine

        self._task = task
        self._generation = config.generation
        self._problems = list(task.problems(config.split))[: config.limit]
        if not self._problems:
            raise DataError(f"the task {type(task).__name__} has no problems in the split {config.split!r}")
        known = {name for one in self._problems for name in task.metrics(one, one.completion or "")}
        if config.best_by is not None and config.best_by not in known:
            raise UserError(
                f"evaluate.best_by is {config.best_by!r}, which the task {type(task).__name__} does not measure",
                hint=did_you_mean(config.best_by, known),
            )
        self._engine = native_engine(model, tokenizer, seed=seed)
        self._plan = self._engine.plan([one.prompt for one in self._problems], config.generation)

    def measure(self) -> dict[str, float]:
        """Return the mean of each metric, under the name ``eval/METRIC``."""
        records = Records()
        for batch in self._plan:
            completions = self._engine.complete(batch, self._generation)
            for record in score(self._task, self._problems, batch, completions):
                records.add(record)
        return {f"eval/{name}": value for name, value in records.means().items()}
