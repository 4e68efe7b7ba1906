"""A stage as a report sees it: what its files say, and the graph around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from clew.errors import UserError
from clew.reports.facts import Facts, read_facts
from clew.runs import JobResult, Run, RunInfo, State
from clew.runs.result import Failure, log_tail

FAILURES = frozenset({State.FAILED, State.INTERRUPTED, State.STOPPED, State.UNKNOWN})


@dataclass(frozen=True)
class StageView:
    """A stage of a pipeline, or a run that stands alone.

    Args:
        name: The stage's name.
        job: What it does, such as ``sft``.
        run: The run that stands for it; None when it was never started.
        needs: Names of the stages before it.
    """

    name: str
    job: str
    run: Run | None = None
    needs: Sequence[str] = ()


class Stage:
    """A stage with everything that was read about it; each file is read once, when it is first asked for."""

    def __init__(self, view: StageView) -> None:
        self.name = view.name
        self.job = view.job
        self.run = view.run
        self.needs = tuple(view.needs)

    @cached_property
    def info(self) -> RunInfo | None:
        """The run's identity; None without a run, or when ``run.json`` is damaged."""
        try:
            return self.run.info if self.run else None
        except (UserError, TypeError):
            return None

    @cached_property
    def state(self) -> State | None:
        """The run's state; None without a run."""
        return self.run.state if self.run else None

    @cached_property
    def attempt(self) -> int | None:
        """Number of the newest attempt; None when there is none."""
        try:
            return (self.run.states.read().attempt or None) if self.run else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    @cached_property
    def result(self) -> JobResult | None:
        """The outcome of the newest attempt; None while it has none, or when ``result.json`` is damaged."""
        try:
            result = self.run.result if self.run else None
        except (ValueError, KeyError, TypeError):
            return None
        return result if result and result.attempts == self.attempt else None

    @cached_property
    def facts(self) -> Facts:
        """What the journal says."""
        return read_facts(self.run.events() if self.run else ())

    @property
    def is_evaluation(self) -> bool:
        """Say whether the stage asks a model problems; one that trains and samples on the way is none."""
        return self.job == "eval" or (self.facts.evaluation.count > 0 and "loss" not in self.facts.series)

    @property
    def learns_from_rewards(self) -> bool:
        """Say whether the stage trains a policy."""
        return self.job == "grpo" or self.facts.rollouts.count > 0 or "reward" in self.facts.series

    @property
    def seconds(self) -> float | None:
        """Wall time of all attempts; a worker that was killed wrote none down, so the journal is asked then."""
        return (self.result.seconds if self.result else None) or self.facts.seconds

    @property
    def environment(self) -> dict[str, object]:
        """Versions and hardware of the newest attempt."""
        return (self.result.environment if self.result else None) or self.facts.environment

    @property
    def failure(self) -> Failure | None:
        """Why the run did not complete; None when it did, or is still at it."""
        if self.run is None or self.state not in FAILURES:
            return None
        if self.result and self.result.failure:
            return self.result.failure
        tail = log_tail(self.run.log_path(self.attempt or 1))
        return Failure("unknown", "the run ended without writing down why", tail)


def heading(of: str) -> str:
    """Return the title of the column that says which stage a row is about."""
    return "stage" if of == "pipeline" else "run"


def ancestors(stages: Sequence[Stage]) -> dict[str, frozenset[str]]:
    """For each stage, the stages before it that change a model: those that are no evaluations."""
    known = {stage.name: stage for stage in stages}
    found: dict[str, frozenset[str]] = {}

    def of(name: str) -> frozenset[str]:
        if name not in found:
            found[name] = frozenset()  # a circle, which no plan has, must not be walked for ever
            needs = [need for need in known[name].needs if need in known]
            own = {need for need in needs if not known[need].is_evaluation}
            found[name] = frozenset(own.union(*(of(need) for need in needs)))
        return found[name]

    return {stage.name: of(stage.name) for stage in stages}


def evaluations_of(stages: Sequence[Stage]) -> list[Stage]:
    """Return the evaluations, those of the earliest models first."""
    before = ancestors(stages)
    return sorted((stage for stage in stages if stage.is_evaluation), key=lambda stage: len(before[stage.name]))


def predecessor(stage: Stage, stages: Sequence[Stage]) -> Stage | None:
    """Return the evaluation to compare another with: of the nearest model that this one was made from.

    Only one that asked the very same problems will do, for means over other problems cannot be compared.
    """
    before = ancestors(stages)
    candidates = [
        other
        for other in evaluations_of(stages)
        if before[other.name] < before[stage.name]
        and other.facts.evaluation.problems == stage.facts.evaluation.problems
        and other.facts.evaluation.count
    ]
    return candidates[-1] if candidates else None
