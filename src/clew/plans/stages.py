"""Which run stands for a stage, and whether a stage may start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from clew.errors import ClewError, UserError
from clew.jobs import LoadedJob, create_job_run
from clew.plans.pipeline import Pipeline, Stage
from clew.plans.storage import Plan
from clew.runs import ACTIVE, Failure, Run, State, Workspace


@dataclass(frozen=True)
class Skip:
    """Why a stage is left out."""

    reason: str
    after_failure: bool = False
    """Whether that is because something failed; otherwise a condition did not hold."""


@dataclass(frozen=True)
class StageResult:
    """What came of a stage; without a run it was never started."""

    state: State
    run: Run | None = None
    error: ClewError | None = None
    skip: Skip | None = None

    @property
    def failure(self) -> Failure:
        """Why it did not complete."""
        if self.error is not None:
            # Only what went wrong with a run that was there can pass: the rest comes out the same again.
            lasting = isinstance(self.error, UserError) or self.run is None
            return Failure(type(self.error).__name__ if lasting else "killed", str(self.error), lasting=lasting)
        result = self.run.result if self.run else None
        now = self.run.states.read() if self.run else None
        if result is not None and result.failure is not None and now and result.attempts == now.attempt:
            return result.failure
        return Failure(self.state.value, f"the run is {self.state}")


def skip_of(stage: Stage, results: Mapping[str, StageResult]) -> Skip | None:
    """Say whether a stage must be left out because of what came of those that it needs; all of them are over.

    What only stands ``after`` a stage that a condition left out has nothing to miss, and runs.
    """
    for name in stage.needs:
        result = results[name]
        if result.skip is None and result.state is not State.COMPLETED:
            return Skip(f"{name} {'has failed' if result.state is State.FAILED else f'is {result.state}'}", True)
        if result.skip is not None and (result.skip.after_failure or name in stage.inputs):
            return Skip(f"{name} was skipped", result.skip.after_failure)
    return None


class StageRuns:
    """The runs of a plan's stages."""

    def __init__(self, plan: Plan, workspace: Workspace) -> None:
        self._plan = plan
        self._workspace = workspace

    def choose(self, stage: Stage, loaded: LoadedJob) -> Run:
        """Return the run that stands for a stage: one that is done, one to go on with, or a new one."""
        return self._find(stage, loaded) or create_job_run(
            self._workspace, loaded, run_id=self._free_name(stage), plan=self._plan.id, stage=stage.name
        )

    def of(self, stage: str) -> list[Run]:
        """Return all runs of a stage, the oldest first."""
        found = [Run(path.parent) for path in self._workspace.runs.glob(f"{self._plan.id}.{stage}*/run.json")]
        mine = [run for run in found if (run.info.plan, run.info.stage) == (self._plan.id, stage)]
        return sorted(mine, key=lambda run: run.info.created)

    def _find(self, stage: Stage, loaded: LoadedJob) -> Run | None:
        """Return the newest run that stands for this stage as it is asked for now: done, or to be gone on with."""
        since = self._plan.renewed().get(stage.name, 0.0)
        for run in reversed(self.of(stage.name)):
            info = run.info
            if (info.config_hash, info.code_hash) != (loaded.config_hash, loaded.code_hash) or info.created < since:
                continue
            if run.state is not State.COMPLETED or _artifacts_present(run):
                return run
        return None

    def _free_name(self, stage: Stage) -> str:
        base = f"{self._plan.id}.{stage.name}"
        number = 1
        while (self._workspace.runs / (name := base if number == 1 else f"{base}.{number}") / "run.json").exists():
            number += 1
        return name


def _artifacts_present(run: Run) -> bool:
    result = run.result
    return result is not None and all((run.path / item.path).exists() for item in result.artifacts.values())


def start_from(plan: Plan, pipeline: Pipeline, workspace: Workspace, stage: str) -> None:
    """Have a stage, and all that need it, done again when the plan is carried out next, even if they are done.

    Raises:
        ConfigError: If there is no such stage.
        UserError: If one of them runs still.
    """
    again = pipeline.dependants(stage)
    runs = StageRuns(plan, workspace)
    for name in again:
        for run in runs.of(name):
            if run.state in ACTIVE:
                raise UserError("this stage is still at work", where=run.id, hint=f"clew stop {run.id} ends it")
    plan.renew(again)
