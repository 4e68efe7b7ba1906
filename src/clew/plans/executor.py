"""Carries a pipeline out: starts what is ready, keeps what is done, goes on where it was left.

Whether a stage is done is asked of its runs, not remembered: a completed run of the same plan and stage, with the same
config hash (which covers the content of its input files) and the same code, stands for the stage. So a killed
orchestrator loses nothing, and a changed stage takes along exactly the stages that depend on its outputs.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from clew.config.tree import Origin
from clew.errors import ClewError
from clew.jobs import LoadedJob, create_job_run, load_job
from clew.plans.pipeline import Pipeline, Stage
from clew.plans.references import resolve_references, value_from_run
from clew.plans.storage import Plan
from clew.runs import Owner, Run, State, Workspace
from clew.targets import Target, Worker
from clew.targets.watching import TICK_SECONDS, Watcher, is_over


@dataclass(frozen=True)
class StageResult:
    """What came of a stage; without a run it was never started."""

    state: State
    run: Run | None = None
    error: ClewError | None = None


class Executor:
    """One attempt at a plan.

    Args:
        plan: The plan's directory.
        workspace: Where the runs go.
        target: Where they execute.
        watcher: Is told what happens.
    """

    def __init__(self, plan: Plan, workspace: Workspace, target: Target, watcher: Watcher) -> None:
        self._plan = plan
        self._workspace = workspace
        self._target = target
        self._watcher = watcher
        self._results: dict[str, StageResult] = {}
        self._active: dict[str, Worker] = {}
        self._stopping = False

    def execute(self, pipeline: Pipeline) -> State:
        """Run all stages that are not done, and return the plan's state.

        Raises:
            IllegalMove: If another process carries this plan out just now.
        """
        attempt = self._plan.states.queue()
        for stale in self._plan.inbox.poll():
            self._plan.inbox.remove(stale)  # a stop that came too late must not stop this attempt
        self._plan.write(pipeline)
        self._plan.states.move(State.STARTING, attempt=attempt, owner=Owner.current())
        self._plan.states.move(State.RUNNING, attempt=attempt, owner=Owner.current())
        state = State.INTERRUPTED
        try:
            self._carry_out(pipeline, attempt)
            state = self._verdict(pipeline)
        finally:
            self._plan.states.move(state, attempt=attempt)
        return state

    @property
    def results(self) -> dict[str, StageResult]:
        """What has come of each stage so far."""
        return self._results

    def _carry_out(self, pipeline: Pipeline, attempt: int) -> None:
        renewed = time.monotonic()
        while True:
            try:
                self._start_ready(pipeline)
                if not self._active:
                    return
                self._collect()
                self._read_inbox()
                if time.monotonic() - renewed > 15:
                    self._plan.states.renew(attempt)
                    renewed = time.monotonic()
                self._watcher.tick()
                time.sleep(TICK_SECONDS)
            except KeyboardInterrupt:
                if self._stopping:
                    raise
                self._stop()

    def _start_ready(self, pipeline: Pipeline) -> None:
        for stage in pipeline.stages.values():
            if self._stopping or self._failed() or len(self._active) >= pipeline.max_parallel:
                return
            if stage.name in self._results or stage.name in self._active:
                continue
            if all(self._is_complete(name) for name in stage.needs):
                self._start(stage)

    def _start(self, stage: Stage) -> None:
        run: Run | None = None
        try:
            run = self._run_for(stage)
            self._plan.choose_run(stage.name, run.id)
            if run.state is State.COMPLETED:
                self._results[stage.name] = StageResult(State.COMPLETED, run)
                self._watcher.reused(stage.name, run)
                return
            self._active[stage.name] = self._target.launch(run)
            self._watcher.started(stage.name, run)
        except ClewError as error:
            # One stage that cannot start must not take down the stages that run.
            self._results[stage.name] = StageResult(State.FAILED, run, error)

    def _run_for(self, stage: Stage) -> Run:
        """Return the run that stands for a stage: one that is done, one to go on with, or a new one."""
        loaded = self._load(stage)
        return self._find(stage, loaded) or create_job_run(
            self._workspace, loaded, run_id=self._free_name(stage), plan=self._plan.id, stage=stage.name
        )

    def _load(self, stage: Stage) -> LoadedJob:
        def lookup(name: str, rest: str, origin: Origin) -> object:
            run = self._results[name].run
            assert run is not None, "a stage starts only after what it needs"
            return value_from_run(run, rest, origin.where)

        return load_job(resolve_references(stage.tree, lookup))

    def _find(self, stage: Stage, loaded: LoadedJob) -> Run | None:
        """Return the newest run that stands for this stage as it is asked for now: done, or to be gone on with."""
        for run in reversed(self._runs_of(stage)):
            info = run.info
            if (info.config_hash, info.code_hash) != (loaded.config_hash, loaded.code_hash):
                continue
            if run.state is not State.COMPLETED or _artifacts_present(run):
                return run
        return None

    def _runs_of(self, stage: Stage) -> list[Run]:
        found = [Run(path.parent) for path in self._workspace.runs.glob(f"{self._plan.id}.{stage.name}*/run.json")]
        mine = [run for run in found if (run.info.plan, run.info.stage) == (self._plan.id, stage.name)]
        return sorted(mine, key=lambda run: run.info.created)

    def _free_name(self, stage: Stage) -> str:
        base = f"{self._plan.id}.{stage.name}"
        number = 1
        while (self._workspace.runs / (name := base if number == 1 else f"{base}.{number}") / "run.json").exists():
            number += 1
        return name

    def _collect(self) -> None:
        for name, worker in list(self._active.items()):
            if is_over(state := worker.poll()):
                del self._active[name]
                self._results[name] = StageResult(state, worker.run)
                self._watcher.tick()
                self._watcher.ended(name, worker.run, state)

    def _read_inbox(self) -> None:
        for command in self._plan.inbox.poll():
            if command.verb == "stop" and not self._stopping:
                self._stop()
            self._plan.inbox.remove(command)

    def _stop(self) -> None:
        self._stopping = True
        for worker in self._active.values():
            worker.run.inbox.send("stop")

    def _failed(self) -> bool:
        return any(result.state is not State.COMPLETED for result in self._results.values())

    def _is_complete(self, name: str) -> bool:
        return name in self._results and self._results[name].state is State.COMPLETED

    def _verdict(self, pipeline: Pipeline) -> State:
        states = {result.state for result in self._results.values()}
        if all(self._is_complete(name) for name in pipeline.stages):
            return State.COMPLETED
        for state in (State.FAILED, State.INTERRUPTED):
            if state in states:
                return state
        return State.STOPPED if self._stopping or State.STOPPED in states else State.FAILED


def latest_runs(plan: Plan, workspace: Workspace) -> dict[str, Run]:
    """Return the run that stood for each stage when the plan was last carried out, for people who look from outside."""
    found = {stage: Run(workspace.runs / run) for stage, run in plan.chosen_runs().items()}
    return {stage: run for stage, run in found.items() if (run.path / "run.json").exists()}


def _artifacts_present(run: Run) -> bool:
    result = run.result
    return result is not None and all((run.path / item.path).exists() for item in result.artifacts.values())
