"""What the tests of pipelines share: a target without processes, and somebody who answers."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from clew.plans import Executor, Question, StageResult, load_pipeline, open_plan
from clew.runs import Run, State, Workspace
from clew.targets.watching import Silent
from clew.worker import work

FLAKY = f"{Path(__file__).parent / 'flaky_jobs.py'}:flaky"


def stage(**config: Any) -> dict[str, Any]:
    """A stage that does well unless it is told otherwise."""
    return {"job": FLAKY, **config}


class Here:
    """Runs a worker in this process, which is over when it is launched."""

    def __init__(self) -> None:
        self.launched: list[str] = []

    def launch(self, run: Run) -> Here.Worker:
        self.launched.append(run.id)
        attempt = run.states.queue()
        run.states.move(State.STARTING, attempt=attempt)
        work(run, attempt)
        return Here.Worker(run)

    class Worker:
        def __init__(self, run: Run) -> None:
            self.run = run

        def poll(self) -> State:
            return self.run.state


class Person:
    """Answers from a list; an exception in it is raised."""

    def __init__(self, answers: Iterable[str | type[BaseException]] = ()) -> None:
        self.answers = list(answers)
        self.notes: list[str] = []
        self.asked: list[Question] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def answer(self, question: Question) -> str | None:
        self.asked.append(question)
        answer = self.answers.pop(0) if self.answers else KeyboardInterrupt
        if isinstance(answer, str):
            return answer
        raise answer


class Outcome:
    """One execution of a pipeline and what came of it."""

    def __init__(
        self, workspace: Workspace, stages: dict[str, Any], answers: Iterable[Any] = (), name: str = "p", **top: Any
    ) -> None:
        self.target = Here()
        self.person = Person(answers)
        self.plan = open_plan(workspace, name)
        executor = Executor(self.plan, workspace, self.target, Silent(), self.person)
        self.state = executor.execute(load_pipeline({"stages": stages, **top}))
        self.results: dict[str, StageResult] = executor.results

    @property
    def launched(self) -> list[str]:
        return self.target.launched

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.plan.events.read_text().splitlines()]

    def told(self) -> list[str]:
        return [event["event"] for event in self.events]

    def skips(self) -> dict[str, str]:
        return {name: result.skip.reason for name, result in self.results.items() if result.skip}
