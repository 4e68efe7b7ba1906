"""What the jobs that adapt a model look at while it is trained: the task's own evaluation, the best, patience."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from clew.engines.base import Engine
from clew.jobs.probe import EvaluateConfig, Probe
from clew.jobs.rating import Published, Rating
from clew.jobs.tuning import TuningConfig
from clew.runs.files import read_json, write_json
from clew.tasks import Chat, Example, Task
from clew.train.config import EarlyStoppingConfig
from clew.train.stopping import Patience

_STATE = "watch.json"


class TuningWatch:
    """A :class:`clew.live.watching.Watch`.

    Args:
        rating: What decides about the best state.
        probe: Asks the task's problems; None never does.
        every: After how many steps.
        stopping: When to give up; None never does.
        keeps_best: Whether each new best is saved at once, and nothing else is rated.
    """

    def __init__(
        self, rating: Rating, probe: Probe | None, every: int, stopping: EarlyStoppingConfig | None, *, keeps_best: bool
    ) -> None:
        self._rating = rating
        self._probe = probe
        self._every = every
        self._keeps_best = keeps_best
        self._measured: int | None = None
        self._best = Patience()
        self._patience = Patience(stopping.patience, stopping.min_delta) if stopping else Patience()

    @property
    def is_out(self) -> bool:
        """Whether patience is out."""
        return self._patience.is_out

    def measure(self, step: int, *, last: bool) -> Mapping[str, float]:
        """Ask the task's problems where that is due: every so many steps, and at the end."""
        if self._probe is None or self._measured == step or not (last or step % self._every == 0):
            return {}
        self._measured = step
        return self._probe.measure()

    def ask(self) -> Mapping[str, float]:
        """Ask the task's problems now, whatever is due."""
        return self._probe.measure() if self._probe is not None else {}

    def judge(self, step: int, measured: Mapping[str, float]) -> tuple[float | None, bool]:
        """Rate a state, and say whether it is to be saved at once."""
        rating = self._rating.of(measured)
        if rating is None:
            # What decides was measured, but is no number: that is no improvement.
            if self._rating.metric in measured:
                self._patience.update(step, float("nan"))
            return None, False
        self._patience.update(step, rating)
        is_best = self._best.update(step, rating)
        if not self._keeps_best:
            return rating, False
        # Only what is better than all before is rated: a stop in between must not make an equal one the best.
        return (rating, True) if is_best else (None, False)

    def notes(self, total: int, finished: int) -> dict[str, Any]:
        """Return what the result says of a training that ended before its last step; empty for others."""
        return {"stopped_early": {"of_steps": total, **self._patience.state()}} if finished < total else {}

    def save(self, directory: Path) -> None:
        """Write what is known so far."""
        write_json(directory / _STATE, {"best": self._best.state(), "patience": self._patience.state()})

    def load(self, directory: Path) -> None:
        """Take over what :meth:`save` wrote; checkpoints of versions without it know nothing."""
        if (directory / _STATE).is_file():
            state = read_json(directory / _STATE)
            self._best.load(state["best"])
            self._patience.load(state["patience"])


class Watched(Protocol):
    """What a job's config says about looking at the model while it is trained."""

    @property
    def task(self) -> Task:
        """Whose problems are asked."""

    @property
    def evaluate(self) -> EvaluateConfig | None:
        """Which of them, and when."""

    @property
    def training(self) -> TuningConfig:
        """Whether it may end early."""

    @property
    def publish(self) -> Published:
        """Which weights are published."""

    @property
    def chat(self) -> Chat:
        """How prompts are shown in training."""

    @property
    def seed(self) -> int:
        """Of the sampling, where there is any."""


def check_watched(config: Watched, *, validates: bool) -> None:
    """Check that something decides which state is the best, where that is asked for.

    Args:
        config: A job's config.
        validates: Whether the job measures a validation loss.

    Raises:
        ValueError: If nothing does; named after the fields.
    """
    decided = validates or (config.evaluate is not None and config.evaluate.best_by is not None)
    asks = "training.early_stopping" if config.training.early_stopping else "publish"
    if not decided and (config.training.early_stopping or config.publish == "best"):
        raise ValueError(f"{asks} and evaluate.best_by: nothing says which state is the best; set evaluate.best_by")


def watch_of(
    config: Watched, model: Any, tokenizer: Any, problems: Sequence[Example], *, loss: str = "eval_loss"
) -> TuningWatch:
    """Return the watch that a config asks for.

    Args:
        config: The job's config.
        model: The model that the trainer trains, live; it is left as it was found.
        tokenizer: Its tokenizer.
        problems: What is asked, from :func:`clew.jobs.probe.asked`.
        loss: The name of the validation loss, which decides where ``evaluate.best_by`` does not.

    Raises:
        UserError: If a problem does not fit into the model.
    """
    from clew.engines.transformers import TransformersEngine

    evaluate, stopping, rating = config.evaluate, config.training.early_stopping, Rating.chosen(config.evaluate, loss)
    keeps_best = stopping is not None or config.publish == "best" or rating.metric != loss
    return TuningWatch(
        rating,
        _probe(config, evaluate, problems, TransformersEngine(model, tokenizer, seed=config.seed))
        if evaluate
        else None,
        evaluate.every if evaluate else 1,
        stopping,
        keeps_best=keeps_best,
    )


def _probe(config: Watched, evaluate: EvaluateConfig, problems: Sequence[Example], engine: Engine) -> Probe:
    if evaluate.generation.chat == "auto":  # asked as it is trained
        evaluate = replace(evaluate, generation=replace(evaluate.generation, chat=config.chat))
    return Probe(config.task, problems, evaluate, engine)
