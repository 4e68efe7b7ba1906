"""``inspect`` in a real session: an artifact of this step's weights, and a training that goes on as without it."""

from __future__ import annotations

import random
from functools import partial

import numpy as np
import pytest

from clew.errors import UserError
from clew.inspection.parts import PART_ROWS
from clew.inspection.published import inspection, inspections
from clew.runs import Command, Owner, RunInfo, State, create_run
from clew.runs.files import tree_digest
from clew.session import CheckpointConfig, RunStopped, Session, Setting
from fake_scorer import FakeScorer


class Trainer:
    """Draws a number a step; its losses are those of its weight."""

    size = 5

    def __init__(self) -> None:
        self.step, self.weight, self.looks = 0, 1.0, []

    def train(self):
        self.step += 1
        self.weight += random.random()

    def save(self, directory):
        (directory / "state").write_text(f"{self.step} {self.weight}")

    def load(self, directory):
        step, weight = (directory / "state").read_text().split()
        self.step, self.weight = int(step), float(weight)

    def settings(self):
        return [Setting("weight", lambda: self.weight, partial(setattr, self, "weight"))]

    def digests(self):
        return {"weights": f"{self.weight}", "optimizer": "none"}

    def scorer(self, split):
        if split not in ("train", "test-2"):
            raise UserError(f"there is no split {split!r}")
        scorer = FakeScorer(self.weight * np.arange(self.size), batch_size=1000)
        scorer.scored = self.looks
        return scorer


class Large(Trainer):
    size = 2 * PART_ROWS + 1


@pytest.fixture
def run(tmp_path):
    return create_run(tmp_path / "runs", RunInfo(id="r", job="count"), "job: count\n", {})


def attempt(run, until=4, *, trainer=None):
    random.seed(0)
    number = run.states.queue()
    run.states.move(State.STARTING, attempt=number)
    run.states.move(State.RUNNING, attempt=number, owner=Owner.current())
    trainer, end = trainer or Trainer(), State.COMPLETED
    try:
        with Session(run, None, number) as session:
            session.attach(trainer, CheckpointConfig())
            while trainer.step < until:
                trainer.train()
                session.log(trainer.step, weight=trainer.weight)
                session.boundary(trainer.step)
    except RunStopped as stopped:
        end = stopped.state
    run.states.move(end, attempt=number)
    return trainer


def ask(run, at=None, /, **args):
    run.inbox.post(Command("inspect", args, at=at))


def settled(run):
    return [event for event in run.events("command") if event["verb"] == "inspect"]


def weights(run):
    return [event["values"]["weight"] for event in run.events("metric")]


def test_it_is_an_artifact_of_this_step(run, tmp_path):
    ask(run, 2)
    ask(run, 3, split="test-2", clusters=2, tokens=False, limit=3)
    attempt(run)
    calm = create_run(tmp_path / "calm", RunInfo(id="r", job="count"), "job: count\n", {})
    attempt(calm)
    assert weights(run) == weights(calm)
    first, second = (event["result"] for event in settled(run))
    assert first == {
        "path": "artifacts/inspections/step-00000002-train",
        "samples": 5,
        "loss": pytest.approx(2 * weights(run)[1]),
        "clusters": 5,
    }
    assert (second["path"], second["samples"]) == ("artifacts/inspections/step-00000003-test-2", 3)
    found = inspection(run.path, "train")
    assert found.numbers("loss").tolist() == pytest.approx([weights(run)[1] * number for number in range(5)])
    assert [path.name for path in sorted((run.artifacts / "inspections").iterdir())] == [
        "step-00000002-train",
        "step-00000003-test-2",
    ]
    told = [(event["at"], event["done"], event["total"]) for event in run.events("progress")]
    assert (2, 5, 5) in told


def test_the_same_weights_are_looked_at_once_and_others_anew(run):
    ask(run, 2)
    ask(run, 2, clusters=2)
    trainer = attempt(run)
    assert trainer.looks == list(range(5))
    assert [event["result"]["clusters"] for event in settled(run)] == [5, 2]


def test_other_weights_of_the_same_step_are_looked_at_anew(run):
    ask(run, 2)
    run.inbox.post(Command("set", {"weight": 50}, at=2))
    ask(run, 2)
    trainer = attempt(run)
    assert trainer.looks == [*range(5), *range(5)]
    assert inspection(run.path, "train").numbers("loss").tolist() == [0, 50, 100, 150, 200]


def test_a_stop_does_not_wait_for_it_and_the_next_attempt_goes_on_with_it(run, tmp_path):
    class Hurried(Large):
        def scorer(self, split):
            scorer, score = super().scorer(split), FakeScorer.score

            def score_and_ask(ids, **options):
                if ids[0] == PART_ROWS + 2000:
                    run.inbox.send("stop")
                return score(scorer, ids, **options)

            scorer.score = score_and_ask
            return scorer

    ask(run, 2)
    trainer = attempt(run, trainer=Hurried())
    assert [event["outcome"] for event in settled(run)] == ["rejected: cancelled"]
    assert (run.state, trainer.step) == (State.STOPPED, 2)
    assert inspections(run.path) == []
    ask(run, 2)
    second = attempt(run, trainer=Large())
    assert [event["outcome"] for event in settled(run)][1:] == ["applied"]
    assert second.looks == list(range(PART_ROWS, Large.size))
    calm = create_run(tmp_path / "calm", RunInfo(id="r", job="count"), "job: count\n", {})
    ask(calm, 2)
    attempt(calm, trainer=Large())
    one, other = inspection(run.path, "train"), inspection(calm.path, "train")
    assert tree_digest(one.path) == tree_digest(other.path)


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        ({"split": "valid"}, "there is no split 'valid'"),
        ({"split": "../x"}, "'../x' is no split (such as train)"),
        ({"split": 3}, "3 is no split"),
        ({"clusters": -1}, "clusters must be a whole number from 0, not -1"),
        ({"limit": 0}, "limit must be a whole number from 1, not 0"),
        ({"tokens": "yes"}, "tokens must be true or false, not 'yes'"),
        ({"cluster": 1}, "inspect has no argument 'cluster'; did you mean 'clusters'?"),
    ],
)
def test_nonsense_is_rejected_and_leaves_nothing(run, args, reason):
    ask(run, 1, **args)
    attempt(run, 2)
    assert settled(run)[0]["outcome"].startswith(f"rejected: {reason}")
    assert list(run.artifacts.iterdir()) == []


def test_a_job_that_cannot_look_at_samples_says_so(run):
    class Blind(Trainer):
        scorer = None

    ask(run, 1)
    attempt(run, 2, trainer=Blind())
    assert settled(run)[0]["outcome"] == "rejected: this job cannot look at single samples"
