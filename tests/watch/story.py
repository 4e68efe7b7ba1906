"""Runs to look at, written by the same writers as real ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clew.runs import JournalWriter, Owner, Run, RunInfo, State, create_run

BEGAN = 1_700_000_000.0


class Story:
    """A run whose journal is written with a clock of its own: a second for each event."""

    def __init__(self, runs: Path, name: str = "a", **info: Any) -> None:
        runs.mkdir(parents=True, exist_ok=True)
        self.run: Run = create_run(runs, RunInfo(name, "sft", **info), "job: sft\n", {})
        self.now = BEGAN
        self.number = 0

    def begin(self) -> JournalWriter:
        """Begin an attempt; this process owns it."""
        self.number = self.run.states.queue()
        self.run.states.move(State.STARTING, attempt=self.number)
        self.run.states.move(State.RUNNING, attempt=self.number, owner=Owner.current())
        journal = JournalWriter(self.run.path / "journal", self.number, clock=self._tick)
        journal.write("attempt", number=self.number)
        return journal

    def move(self, state: State) -> None:
        self.run.states.move(state, attempt=self.number)

    def _tick(self) -> float:
        self.now += 1.0
        return self.now


def told(runs: Path) -> Story:
    """A run of 40 steps in two attempts, with commands, a checkpoint and rollouts; it is paused at step 30."""
    story = Story(runs, parent="base", fork_step=5)
    journal = story.begin()
    journal.write("restore", step=5)
    journal.write("horizon", total=40, unit="step")
    for step in range(6, 26):
        journal.write_metrics(step, {"loss": 4 / step, "lr": 1e-3, "tokens_per_second": 4000.0 + step})
    journal.write("checkpoint", step=20, path="checkpoints/step-00000020", metric=0.2)
    journal.close()
    story.move(State.INTERRUPTED)
    journal = story.begin()
    journal.write("restore", step=20)
    journal.write("horizon", total=40, unit="step")
    for step in range(21, 31):
        journal.write_metrics(step, {"loss": 4 / step, "lr": 2e-3, "tokens_per_second": 5000.0 + step})
        rewards = {"exact": float(step % 2), "format": 1.0}
        journal.write("rollout", step=step, id="p", prompt=f"{step} + 1 =", completion=f" {step + 1}", rewards=rewards)
    journal.write_metrics(30, {"val_loss": 0.25})
    command("set", "applied", journal, at=30, args={"lr": "2e-3"})
    command("set", "rejected: there is no setting 'lrr'; did you mean 'lr'?", journal, at=30, args={"lrr": 1})
    command("pause", "applied", journal, at=30)
    journal.write("paused", at=30)
    journal.write("digest", step=30, weights="c0ffee")
    journal.close()
    story.move(State.PAUSED)
    story.run.log_path(2).write_text("loading\n\x1b[32mtrained\x1b[0m 30 steps\n")
    return story


def command(verb: str, outcome: str, journal: JournalWriter, *, at: int, args: dict[str, Any] | None = None) -> None:
    fields = {"args": args} if args else {}
    journal.write("command", id=f"id-{verb}", verb=verb, issuer="ada", sent=0.0, **fields, at=at, outcome=outcome)
