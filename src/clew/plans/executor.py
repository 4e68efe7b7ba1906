"""Carries a pipeline out: starts what is ready, keeps what is done, goes on where it was left.

Whether a stage is done is asked of its runs, not remembered: a completed run of the same plan and stage, with the same
config hash (which covers the content of its input files) and the same code, stands for the stage. So a killed
orchestrator loses nothing, and a changed stage takes along exactly the stages that depend on its outputs.
"""

from __future__ import annotations

import time
from collections import Counter

from clew.config.tree import Origin
from clew.errors import ClewError
from clew.jobs import LoadedJob, load_job
from clew.jobs.settling import settled
from clew.notify import Notifier, TellingWatcher, open_notifier
from clew.plans.pipeline import Pipeline, Stage
from clew.plans.policy import can_pass
from clew.plans.questions import Attendant, Desk, Nobody, Question
from clew.plans.references import resolve_references, split_reference, value_from_run
from clew.plans.stages import Skip, StageResult, StageRuns, skip_of
from clew.plans.storage import Plan
from clew.runs import Owner, Run, State, Workspace
from clew.targets import Target, Worker
from clew.targets.watching import TICK_SECONDS, Watcher, is_over

_RENEW_SECONDS = 15.0


class Executor:
    """One attempt at a plan.

    Args:
        plan: The plan's directory.
        workspace: Where the runs go.
        target: Where they execute.
        watcher: Is told what happens to runs.
        attendant: Is told what else happens, and may answer when a stage waits.
    """

    def __init__(
        self, plan: Plan, workspace: Workspace, target: Target, watcher: Watcher, attendant: Attendant | None = None
    ) -> None:
        self._plan = plan
        self._workspace = workspace
        self._target = target
        self._watcher = watcher
        self._attendant = attendant or Nobody()
        self._runs = StageRuns(plan, workspace)
        self._desk = Desk(plan.path, self._attendant, plan.id)
        self._notifier = Notifier([])
        self._results: dict[str, StageResult] = {}
        self._active: dict[str, Worker] = {}
        self._failing: dict[str, StageResult] = {}
        """Stages that have failed, about which nothing is decided yet: they wait for another try or for an answer."""
        self._due: dict[str, float] = {}
        """When a stage is tried again, on the monotonic clock."""
        self._same: dict[str, Run] = {}
        """Stages that go on with a certain run, whatever has been edited since it was made."""
        self._tries: Counter[str] = Counter()
        self._stopping = False
        self._aborted = False
        self._waits = False

    def execute(self, pipeline: Pipeline) -> State:
        """Run all stages that are not done, and return the plan's state.

        Raises:
            IllegalMove: If another process carries this plan out just now.
            UserError: If somebody is to be told, and it is not known how (a secret that is not in the environment).
        """
        notifier = open_notifier(pipeline.notify, root=self._workspace.root, journal=self._plan.events)
        attempt = self._plan.states.queue()
        for stale in self._plan.inbox.poll():
            if stale.verb != "answer":
                self._plan.inbox.remove(stale)  # a stop that came too late must not stop this attempt
        self._plan.write(pipeline)
        self._plan.states.move(State.STARTING, attempt=attempt, owner=Owner.current())
        self._plan.states.move(State.RUNNING, attempt=attempt, owner=Owner.current())
        state = State.INTERRUPTED
        with notifier as self._notifier:
            self._watcher = TellingWatcher(self._watcher, notifier)
            try:
                self._carry_out(pipeline, attempt)
                state = self._verdict(pipeline)
            finally:
                self._plan.states.move(state, attempt=attempt)
                self._tell("completion", state=state.value)
        return state

    @property
    def results(self) -> dict[str, StageResult]:
        """What has come of each stage so far."""
        return {**self._results, **self._failing}

    def _carry_out(self, pipeline: Pipeline, attempt: int) -> None:
        renewed = time.monotonic()
        while True:
            try:
                self._start_ready(pipeline)
                self._show_state(attempt)
                if not self._active and (self._ending or not self._failing):
                    return
                self._collect(pipeline)
                self._listen()
                if time.monotonic() - renewed > _RENEW_SECONDS:
                    self._plan.states.renew(attempt)
                    renewed = time.monotonic()
                self._watcher.tick()
                time.sleep(TICK_SECONDS)
            except KeyboardInterrupt:
                if self._stopping:
                    raise
                self._stop()

    @property
    def _ending(self) -> bool:
        return self._stopping or self._aborted

    def _show_state(self, attempt: int) -> None:
        """A plan in which nothing can happen before somebody answers is paused."""
        self._waits = bool(self._desk.open) and not (self._active or self._due or self._ending)
        wanted = State.PAUSED if self._waits else State.RUNNING
        if self._plan.states.read().state is not wanted:
            reason = f"waits for an answer: {', '.join(self._desk.open)}" if self._waits else ""
            self._plan.states.move(wanted, attempt=attempt, reason=reason)

    # Starting.

    def _start_ready(self, pipeline: Pipeline) -> None:
        for stage in pipeline.stages.values():
            if self._ending or len(self._active) >= pipeline.max_parallel:
                return
            if stage.name in self._results or stage.name in self._active or not self._is_time(stage.name):
                continue
            if all(name in self._results for name in stage.needs):
                self._consider(stage)

    def _is_time(self, name: str) -> bool:
        """Say whether a stage has not failed, or is to be tried again now."""
        return name not in self._failing or self._due.get(name, float("inf")) <= time.monotonic()

    def _consider(self, stage: Stage) -> None:
        self._due.pop(stage.name, None)
        self._failing.pop(stage.name, None)
        run: Run | None = None
        try:
            if skip := skip_of(stage, self._results) or self._condition(stage):
                self._skip(stage, skip)
                return
            run = self._same.pop(stage.name, None) or self._runs.choose(stage, self._load(stage))
            self._plan.choose_run(stage.name, run.id)
            if run.state is State.COMPLETED:
                self._results[stage.name] = StageResult(State.COMPLETED, run)
                self._watcher.reused(stage.name, run)
            elif self._was_asked(stage, run):
                self._ask(stage, StageResult(run.state, run))
            else:
                self._desk.close(stage.name)  # what was asked was about another run
                self._active[stage.name] = self._target.launch(run)
                self._watcher.started(stage.name, run)
        except ClewError as error:
            # One stage that cannot start must not take down the stages that run.
            self._take_failure(stage, StageResult(State.FAILED, run, error))

    def _was_asked(self, stage: Stage, run: Run) -> bool:
        """Say whether a question about a run was left open by a process that is gone."""
        asks = stage.policy.on_failure == "wait" and self._desk.is_stored(stage.name, run.id)
        return asks and is_over(run.state)

    def _condition(self, stage: Stage) -> Skip | None:
        if stage.when is None:
            return None
        where = stage.when.where
        if stage.when.holds(lambda reference: self._output(*split_reference(reference), where)):
            return None
        return Skip(f"not {stage.when.text}")

    def _skip(self, stage: Stage, skip: Skip) -> None:
        self._results[stage.name] = StageResult(State.CREATED, skip=skip)
        self._desk.close(stage.name)
        self._plan.skip(stage.name, skip.reason)
        self._attendant.note(f"{stage.name}: skipped ({skip.reason})")

    def _load(self, stage: Stage) -> LoadedJob:
        def lookup(name: str, rest: str, origin: Origin) -> object:
            return self._output(name, rest, origin.where)

        return settled(load_job(resolve_references(stage.tree, lookup)), self._workspace.runs)

    def _output(self, name: str, rest: str, where: str) -> object:
        run = self._results[name].run
        assert run is not None, "a stage starts only after what it refers to"
        return value_from_run(run, rest, where)

    # Ending.

    def _collect(self, pipeline: Pipeline) -> None:
        for name, worker in list(self._active.items()):
            if not is_over(state := worker.poll()):
                continue
            del self._active[name]
            self._watcher.tick()
            self._watcher.ended(name, worker.run, state)
            result = StageResult(state, worker.run)
            if state is State.COMPLETED:
                self._results[name] = result
                self._desk.close(name)
            else:
                self._take_failure(pipeline.stages[name], result)

    def _take_failure(self, stage: Stage, result: StageResult) -> None:
        """Decide what becomes of a stage that did not complete."""
        name, failure = stage.name, result.failure
        if result.state is State.STOPPED:
            self._results[name], self._aborted = result, True  # somebody wanted that, so it is no failure
            return
        again, tries = stage.policy.tries, self._tries[name]
        if again and not self._ending and tries < again.times and can_pass(failure):
            self._tries[name] += 1
            wait = again.wait(tries)
            self._failing[name], self._due[name] = result, time.monotonic() + wait
            self._go_on_with(name, result)
            self._attendant.note(f"{name}: try {tries + 1} of {again.times} follows in {wait:g} s ({failure.reason})")
            self._tell("retry", stage=name, run=_id(result), reason=failure.reason, wait_seconds=wait)
            return
        self._tell("failure", stage=name, run=_id(result), state=result.state.value, reason=_reason(result))
        if stage.policy.on_failure == "wait" and not self._ending:
            self._ask(stage, result)
            return
        self._results[name] = result
        self._aborted = self._aborted or stage.policy.on_failure != "continue"

    def _verdict(self, pipeline: Pipeline) -> State:
        states = {result.state for result in self._results.values()}
        if all(self._is_settled(name) for name in pipeline.stages):
            return State.COMPLETED
        if self._stopping and self._failing:
            return State.STOPPED  # it was asked what to do about a failure, and nobody has said yet
        for state in (State.FAILED, State.INTERRUPTED):
            if state in states:
                return state
        return State.STOPPED if self._stopping or State.STOPPED in states else State.FAILED

    def _is_settled(self, name: str) -> bool:
        """Say whether a stage has completed, or had no need to run."""
        result = self._results.get(name)
        if result is None:
            return False
        return not result.skip.after_failure if result.skip else result.state is State.COMPLETED

    # Asking.

    def _ask(self, stage: Stage, result: StageResult) -> None:
        self._failing[stage.name] = result
        question = self._desk.ask(stage.name, _id(result), _reason(result))
        self._tell("waiting", stage=stage.name, run=question.run, reason=question.reason, question=question.id)

    def _listen(self) -> None:
        """Take what has come from elsewhere, and from the attendant where nothing else can happen."""
        for command in self._plan.inbox.poll():
            if command.verb == "answer" and self._desk.is_early(command):
                continue
            if command.verb == "answer" and (answered := self._desk.answered(command)):
                self._obey(*answered)
            elif command.verb == "stop" and not self._stopping:
                self._stop()
            self._plan.inbox.remove(command)
        if not self._waits or self._ending:
            return
        try:
            if answered := self._desk.from_attendant():
                self._obey(*answered)
        except EOFError:
            self._attendant.note("no more input: the pipeline is stopped, and clew resume asks again")
            self._stop()

    def _obey(self, question: Question, choice: str) -> None:
        """Carry an answer out; it is forgotten only after what it asks for is on disk."""
        name = question.stage
        self._attendant.note(f"{name}: {choice}")
        if choice in ("resume", "restart"):
            result = self._failing.pop(name)
            if choice == "restart":
                self._plan.renew([name])
            else:
                self._go_on_with(name, result)
            self._tries.pop(name, None)
        else:
            self._results[name] = self._failing.pop(name)
            self._aborted = self._aborted or choice == "abort"
        self._desk.close(name)
        self._tell("answer", stage=name, run=question.run, question=question.id, choice=choice)

    def _go_on_with(self, name: str, result: StageResult) -> None:
        if result.run is not None:
            self._same[name] = result.run

    def _stop(self) -> None:
        self._stopping = True
        for worker in self._active.values():
            worker.run.inbox.send("stop")

    def _tell(self, event: str, **facts: object) -> None:
        self._notifier.tell(event, pipeline=self._plan.id, **facts)


def latest_runs(plan: Plan, workspace: Workspace) -> dict[str, Run]:
    """Return the run that stood for each stage when the plan was last carried out, for people who look from outside."""
    found = {stage: Run(workspace.runs / run) for stage, run in plan.chosen_runs().items()}
    return {stage: run for stage, run in found.items() if (run.path / "run.json").exists()}


def _id(result: StageResult) -> str:
    return result.run.id if result.run else ""


def _reason(result: StageResult) -> str:
    failure = result.failure
    return failure.reason if result.error is not None else failure.cause
