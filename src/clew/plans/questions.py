"""What a pipeline asks when a stage has failed and ``on_failure`` is ``wait``.

A question is stored in the plan's directory until it is answered, so it outlives whoever carries the plan out; answers
come from the terminal, or as commands in the plan's inbox, from anywhere and at any time.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

from clew.runs import Command
from clew.runs.files import read_json, write_json
from clew.runs.ids import ulid

CHOICES = {
    "resume": "go on from its newest checkpoint",
    "restart": "begin it again from nothing",
    "continue": "go on with what does not need it",
    "abort": "end the pipeline",
}


@dataclass(frozen=True)
class Question:
    """What is to become of a stage?"""

    stage: str
    run: str
    """The run that failed; empty when it could not even be made."""
    reason: str
    id: str = field(default_factory=ulid)
    asked: float = field(default_factory=time.time)


class Attendant(Protocol):
    """Whoever sits before a pipeline."""

    def note(self, text: str) -> None:
        """Something has happened that no run tells."""

    def answer(self, question: Question) -> str | None:
        """Return one of :data:`CHOICES`, or None while there is no answer; never waits.

        Raises:
            EOFError: There will be no answer from here any more, and nobody else is meant to be waited for.
        """


class Nobody:
    """No attendant."""

    def note(self, text: str) -> None:
        """Say nothing."""

    def answer(self, question: Question) -> str | None:
        """Answer nothing."""
        return None


class Desk:
    """The questions of one plan, as the process holds them that carries it out.

    Args:
        folder: The plan's directory.
        attendant: Who is told.
        plan: The plan's id.
    """

    def __init__(self, folder: Path, attendant: Attendant, plan: str) -> None:
        self._folder = folder
        self._attendant = attendant
        self._plan = plan
        self._stored = read_questions(folder)
        self.open: dict[str, Question] = {}
        """Stage to what is asked about it now."""

    def ask(self, stage: str, run: str, reason: str) -> Question:
        """Ask about a stage; a question about the same run that an earlier process left is asked again."""
        old = self._stored.get(stage)
        question = old if old is not None and old.run == run else Question(stage, run, reason)
        self._stored[stage] = self.open[stage] = question
        self._write()
        self._attendant.note(
            f"{stage} has failed and waits for an answer: {question.reason}\n"
            f"  clew answer {self._plan} {stage} {'|'.join(CHOICES)}"
        )
        return question

    def is_stored(self, stage: str, run: str) -> bool:
        """Say whether an earlier process has left a question about this run of a stage."""
        return stage in self._stored and self._stored[stage].run == run

    def close(self, stage: str) -> None:
        """Forget what was asked about a stage."""
        self.open.pop(stage, None)
        if self._stored.pop(stage, None) is not None:
            self._write()

    def answered(self, command: Command) -> tuple[Question, str] | None:
        """Return the open question that a command answers, with the choice; None when there is no such question."""
        question = self.open.get(str(command.args.get("stage")))
        choice = command.args.get("choice")
        return (question, choice) if question and _fits(command, question) and choice in CHOICES else None

    def is_early(self, command: Command) -> bool:
        """Say whether a command answers a stored question that has not been asked again yet."""
        question = self._stored.get(str(command.args.get("stage")))
        return question is not None and question.stage not in self.open and _fits(command, question)

    def from_attendant(self) -> tuple[Question, str] | None:
        """Return the attendant's answer to the oldest open question, if there is one; raises EOFError at the end."""
        if not self.open:
            return None
        question = min(self.open.values(), key=lambda item: item.asked)
        choice = self._attendant.answer(question)
        return (question, choice) if choice in CHOICES else None

    def _write(self) -> None:
        write_json(questions_path(self._folder), {name: asdict(item) for name, item in self._stored.items()})


def _fits(command: Command, question: Question) -> bool:
    return command.args.get("question") == question.id


def questions_path(folder: Path) -> Path:
    """Return the file that holds the questions of a plan."""
    return folder / "questions.json"


def read_questions(folder: Path) -> dict[str, Question]:
    """Return what a plan asks: stage to question."""
    try:
        stored: Mapping[str, Mapping[str, str]] = read_json(questions_path(folder))
        return {stage: Question(**item) for stage, item in stored.items()}  # type: ignore[arg-type]
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
