"""A pretraining that is asked for everything; and one whose loss is no longer finite."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from tuning_support import attempt, metrics_of, new_run, weights_of

from clew.config import config, config_hash
from clew.data.config import DataConfig
from clew.errors import NotFinite
from clew.jobs.base import CheckpointConfig, RuntimeConfig
from clew.jobs.pretrain import PretrainConfig, pretrain
from clew.models.config import ModelConfig
from clew.runs import Command, Run, State
from clew.session import Session
from clew.session.surface import LiveConfig
from clew.tasks import Task
from clew.train import TrainingConfig
from clew.train.loop import Trainer

pytestmark = pytest.mark.slow


@config
class Counting(Task):
    """Words in rows of many lengths, so that some samples are harder than others."""

    def documents(self, split: str) -> Iterable[str]:
        words = ["one", "two", "three", "four", "five", "six", "seven", "eight"]
        return [" ".join(words[: 1 + number % 8]) for number in range(40 if split == "train" else 5)]


def small(**changes: Any) -> PretrainConfig:
    fields = {
        "task": Counting(),
        "model": ModelConfig(depth=1, width=16, heads=2),
        "data": DataConfig(seq_len=16),
        "training": TrainingConfig(steps=14, batch_size=4, lr=0.01, log_every=1, validate_every=7),
        "checkpoint": CheckpointConfig(every=4),
        "runtime": RuntimeConfig(threads=1),
    }
    return PretrainConfig(**fields | changes)


SCRIPT: list[tuple[str, dict[str, Any], int]] = [
    ("evaluate", {}, 2),
    ("select", {"recipe": "hardest 20%"}, 3),
    ("set", {"batch_size": 6, "schedule": "cosine"}, 3),
    ("checkpoint", {"tag": "early"}, 3),
    ("set", {"schedule": "linear"}, 4),
    ("set", {"batch_size": 0}, 4),
    ("reset", {"to": "early"}, 6),
    ("merge", {"sources": [".", "early"], "method": "linear", "weights": [3, 1]}, 8),
    ("health", {}, 9),
    ("select", {"recipe": "all"}, 10),
    ("reset", {"optimizer": True}, 10),
    ("set", {"lr": "*0.5", "batch_size": 3}, 11),
]


def steered(folder: Path) -> Run:
    run = new_run(folder, "pretrain")
    for verb, args, at in SCRIPT:
        run.inbox.post(Command(verb, args, at=at))
    return run


class Killed(BaseException):
    """Nothing more happens in this process."""


def killed(run: Run, settings: PretrainConfig, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make an attempt that is gone at this boundary, before anything was done there."""
    boundary = Session.boundary

    def dying(session: Session[Any], done: int, *, metric: float | None = None) -> None:
        if done == step:
            raise Killed
        boundary(session, done, metric=metric)

    with monkeypatch.context() as patch:
        patch.setattr(Session, "boundary", dying)
        with pytest.raises(Killed):
            attempt(pretrain, run, settings)


def told(run: Run) -> list[tuple[str, int, str]]:
    events = sorted(run.events("command"), key=lambda event: event["at"])
    return [(event["verb"], event["at"], event["outcome"].partition(",")[0]) for event in events]


def test_a_run_that_was_asked_for_everything_is_the_same_after_kills_everywhere(tmp_path, monkeypatch):
    calm = steered(tmp_path / "calm")
    outcome = attempt(pretrain, calm, small())
    assert told(calm) == [
        ("evaluate", 2, "applied"),
        ("select", 3, "applied"),
        ("set", 3, "applied"),
        ("checkpoint", 3, "applied"),
        ("set", 4, "rejected: schedule must be wsd or cosine or constant"),
        ("set", 4, "rejected: batch_size must be at least 1"),
        ("reset", 6, "applied"),
        ("merge", 8, "applied"),
        ("health", 9, "applied"),
        ("select", 10, "applied"),
        ("reset", 10, "applied"),
        ("set", 11, "applied"),
    ]
    disturbed = steered(tmp_path / "disturbed")
    for step in (2, 5, 7, 9, 11, 13):
        killed(disturbed, small(), step, monkeypatch)
    again = attempt(pretrain, disturbed, small())
    assert told(disturbed) == told(calm)
    assert weights_of(disturbed) == weights_of(calm)
    assert again.metrics == outcome.metrics
    assert metrics_of(disturbed) == metrics_of(calm)
    assert digests(disturbed) == digests(calm)
    assert weights_of(calm) != weights_of(plain(tmp_path / "plain"))


def plain(folder: Path) -> Run:
    run = new_run(folder, "pretrain")
    attempt(pretrain, run, small())
    return run


def digests(run: Run) -> dict[int, tuple[str, str]]:
    return {event["step"]: (event["weights"], event["optimizer"]) for event in run.events("digest")}


def test_an_evaluation_stands_in_the_metrics_and_changes_nothing(tmp_path):
    asked, quiet = new_run(tmp_path / "asked"), plain(tmp_path / "quiet")
    for step in (3, 7):
        asked.inbox.post(Command("evaluate", {}, at=step))
    attempt(pretrain, asked, small())
    logged = metrics_of(asked)
    assert {step for step, values in logged.items() if "val_loss" in values} == {3, 7, 14}
    assert logged[7] == metrics_of(quiet)[7]
    assert weights_of(asked) == weights_of(quiet)


def test_the_first_batch_after_a_selection_is_of_it(tmp_path, monkeypatch):
    run, epochs = new_run(tmp_path), []
    run.inbox.post(Command("select", {"recipe": "hardest 20%"}, at=5))
    attempt(pretrain, run, small())
    chosen = next(run.events("command"))["result"]["count"]
    for step, values in metrics_of(run).items():
        if step > 5:
            epochs.append(values["epoch"])
            assert values["epoch"] == pytest.approx((step - 5) * 4 / chosen)
    assert len(epochs) == 9


# A loss that is no longer finite.


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch):
    """The weights are spoiled in a step, once; and the step is the one after which that is noticed."""

    def poison(at: int) -> list[int]:
        step, done = Trainer.step, []

        def spoiling(trained: Trainer) -> None:
            if trained.step_number + 1 == at and not done:
                done.append(at)
                trained.settle()  # the state of the step before may still be copied
                with torch.no_grad():
                    next(trained.model.parameters()).fill_(float("nan"))
            step(trained)

        monkeypatch.setattr(Trainer, "step", spoiling)
        return done

    return poison


def test_a_run_whose_loss_is_not_finite_fails_with_advice(poisoned, tmp_path):
    poisoned(6)
    run = new_run(tmp_path, "pretrain")
    with pytest.raises(NotFinite, match=r"no longer finite at step 6\n  lower training.lr"):
        attempt(pretrain, run, small())
    assert run.state is State.FAILED


@pytest.mark.parametrize(
    ("at", "source"),
    [(5, "@4"), (6, "@4"), (7, "@6"), (8, "@6")],
    ids=["a log step", "a checkpoint halfway", "a validation", "a checkpoint"],
)
def test_it_goes_on_from_the_newest_checkpoints_weights_where_that_is_wanted(at, source, poisoned, tmp_path):
    poisoned(at)
    run = new_run(tmp_path, "pretrain")
    outcome = attempt(pretrain, run, small(live=LiveConfig(on_nan="rollback")))
    assert outcome.notes["steps"] == 14
    assert [(event["verb"], event["at"], event["result"]["source"]) for event in run.events("command")] == [
        ("reset", at, source)
    ]
    assert next(run.events("trouble"))["at"] == at
    losses = {step: values["loss"] for step, values in metrics_of(run).items() if "loss" in values}
    assert losses.keys() == set(range(1, 15)) - {at}
    assert all(loss < 10 for loss in losses.values())


def test_it_waits_for_somebody_where_that_is_wanted(poisoned, tmp_path, monkeypatch):
    poisoned(6)
    run, rescue = new_run(tmp_path, "pretrain"), Session.rescue

    def answered(session: Session[Any], step: int, error: Exception) -> None:
        rescue(session, step, error)
        for verb, args in (("reset", {"to": "last"}), ("resume", {})):
            run.inbox.post(Command(verb, args))

    monkeypatch.setattr(Session, "rescue", answered)
    outcome = attempt(pretrain, run, small(live=LiveConfig(on_nan="pause")))
    assert [(event["verb"], event["at"], event["outcome"]) for event in run.events("command")] == [
        ("pause", 6, "applied"),
        ("reset", 6, "applied"),
        ("resume", 6, "applied"),
    ]
    assert [(event["kind"], event["at"]) for event in run.events("paused", "resumed")] == [
        ("paused", 6),
        ("resumed", 6),
    ]
    assert outcome.notes["steps"] == 14


def test_what_a_run_notes_about_itself_does_not_change_what_it_is():
    loud = LiveConfig(digest_every=1, health_every=2, on_nan="rollback")
    assert config_hash(small(live=loud)) == config_hash(small())


def test_the_state_is_compared_when_it_is_due(tmp_path):
    run = new_run(tmp_path, "pretrain")
    attempt(pretrain, run, small(live=LiveConfig(digest_every=5)))
    assert digests(run).keys() == {5, 10, 14}
    assert len(set(digests(run).values())) == 3
