"""``select`` in a real session: what is chosen is stored, holds from the next batch on, and is never chosen anew."""

from __future__ import annotations

import json

import pytest

from clew.data.feed import Feed
from clew.inspection.stored import load
from clew.runs import Command, Owner, RunInfo, State, create_run
from clew.session import CheckpointConfig, RunStopped, Session
from fake_scorer import FakeScorer

LOSS = [0.5, 3.0, 1.0, 4.0, 2.0, 0.1, 5.0, 0.2]


class Trainer:
    """Takes two samples a step; the losses that it sees fall with each step, so choosing anew would choose others."""

    def __init__(self) -> None:
        self.step, self.feed, self.scored, self.batches = 0, Feed(len(LOSS), 0, 2), 0, {}

    def train(self):
        self.step += 1
        self.batches[self.step] = self.feed.take().tolist()

    def save(self, directory):
        state = self.feed.state()
        if state["selection"]:
            state["selection"]["ids"] = [ids.tolist() for ids in state["selection"]["ids"]]
        (directory / "state").write_text(json.dumps({"step": self.step, "feed": state}))

    def load(self, directory):
        state = json.loads((directory / "state").read_text())
        self.step = state["step"]
        self.feed.load(state["feed"])

    def select(self, selection):
        self.feed.select(selection)

    def scorer(self, split):
        assert split == "train"
        self.scored += 1
        return FakeScorer([value * (-1) ** (self.step // 4) for value in LOSS])


class Blind(Trainer):
    scorer = None


class Fixed(Trainer):
    select = None


@pytest.fixture
def run(tmp_path):
    return create_run(tmp_path / "runs", RunInfo(id="r", job="count"), "job: count\n", {})


def attempt(run, until=6, *, every=100, killed_at=None, kind=Trainer):
    number = run.states.queue()
    run.states.move(State.STARTING, attempt=number)
    run.states.move(State.RUNNING, attempt=number, owner=Owner.current())
    trainer, end = kind(), State.COMPLETED
    try:
        with Session(run, None, number) as session:
            session.attach(trainer, CheckpointConfig(every=every))
            while trainer.step < until:
                trainer.train()
                if trainer.step == killed_at:
                    raise KeyboardInterrupt
                session.boundary(trainer.step)
    except RunStopped as stopped:
        end = stopped.state
    except KeyboardInterrupt:
        end = State.INTERRUPTED
    run.states.move(end, attempt=number)
    return trainer


def ask(run, at=None, /, **args):
    run.inbox.post(Command("select", args, at=at))


def settled(run):
    return [event for event in run.events("command") if event["verb"] == "select"]


def test_what_is_chosen_holds_from_the_next_batch_on(run):
    ask(run, 2, recipe="hardest 25%", order="hard-first")
    trainer = attempt(run)
    assert trainer.batches[3] == trainer.batches[4] == [6, 3]
    (event,) = settled(run)
    result = event["result"]
    assert (event["outcome"], result["count"]) == ("applied", 2)
    assert result["recipe"] == {"text": "hardest 25%", "order": "hard-first"}
    stored = load(run.path, result["stored"], result["sha256"])
    assert [part.ids.tolist() for part in stored.selection.parts] == [[6, 3]]


def test_all_takes_a_selection_back(run):
    ask(run, 1, recipe="ids [5]")
    ask(run, 3, recipe="all")
    trainer, calm = attempt(run), Feed(len(LOSS), 0, 2)
    expected = [calm.take().tolist() for _ in range(6)]
    assert [trainer.batches[step] for step in (2, 3)] == [[5, 5], [5, 5]]
    assert [trainer.batches[step] for step in (4, 5, 6)] == expected[3:]
    assert [event["result"]["count"] for event in settled(run)] == [1, None]


@pytest.mark.parametrize("killed_at", [3, 4, 5, 6])
@pytest.mark.parametrize("every", [2, 100])
def test_an_attempt_that_goes_on_takes_the_stored_numbers(run, killed_at, every):
    ask(run, 2, recipe="0.7 hardest 25% + 0.3 easiest 2")
    ask(run, 4, recipe="easiest 3", order="easy-first")
    first = attempt(run, every=every, killed_at=killed_at)
    second = attempt(run, every=every)
    assert second.batches.items() <= {**first.batches, **second.batches}.items()
    assert [event["result"]["recipe"]["text"] for event in settled(run)] == [
        "0.7 hardest 25% + 0.3 easiest 2",
        "easiest 3",
    ]
    assert first.scored + second.scored == 2
    # Losses have turned around at the fourth step: the easiest are those that were the hardest.
    assert {*second.batches[5], *second.batches[6]} == {6, 3, 1}


def test_a_stored_selection_that_is_damaged_is_not_trained_on(run):
    ask(run, 2, recipe="hardest 2")
    attempt(run, killed_at=4)
    (file,) = (run.path / "selections").iterdir()
    file.write_text(file.read_text().replace("[3,6]", "[3,7]"))
    with pytest.raises(Exception, match="the stored selection is not what was stored"):
        attempt(run)


def test_a_selection_of_another_run_can_be_taken_as_it_is(run, tmp_path):
    ask(run, 2, recipe="hardest 2", order="given")
    attempt(run)
    (file,) = (run.path / "selections").iterdir()
    other = create_run(tmp_path / "runs", RunInfo(id="other", job="count"), "job: count\n", {})
    (other.path / "selections").mkdir()
    (other.path / "selections" / file.name).write_bytes(file.read_bytes())
    ask(other, 5, recipe="easiest 1", order="hard-first", stored=file.name)
    trainer = attempt(other)
    assert (trainer.batches[6], trainer.scored) == ([3, 6], 0)
    assert settled(other)[0]["result"] == settled(run)[0]["result"]


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        ({}, "a selection needs a recipe, as a text (such as hardest 15%)"),
        ({"recipe": 3}, "a selection needs a recipe, as a text (such as hardest 15%)"),
        ({"recipe": "harest 3"}, "recipe, character 1: 'harest' is no choice; did you mean 'hardest'?"),
        ({"recipe": "all", "order": "odd"}, "there is no order 'odd'"),
        ({"recipe": "region 90.."}, "region 90.0.. chooses none of the 8 samples"),
        ({"recipe": "all", "oder": "given"}, "select has no argument 'oder'; did you mean 'order'?"),
        ({"stored": "../x.json"}, "'../x.json' is no stored selection"),
        ({"stored": "0123456789abcdef.json"}, "the stored selection cannot be read: No such file or directory"),
        ({"recipe": "cluster 1/2"}, "this trainer gives no embedding of its samples"),
    ],
)
def test_nonsense_is_rejected_and_changes_nothing(run, args, reason):
    ask(run, 1, **args)
    trainer = attempt(run, 3)
    (event,) = settled(run)
    assert reason in event["outcome"]
    assert event["outcome"].startswith("rejected: ")
    assert trainer.feed.selection is None
    assert not (run.path / "selections").exists()


def test_a_trainer_that_cannot_look_at_samples_takes_numbers(run):
    ask(run, 1, recipe="ids [7, 2]", order="given")
    ask(run, 2, recipe="hardest 2")
    ask(run, 3, recipe="ids [8]")
    trainer = attempt(run, 4, kind=Blind)
    assert trainer.batches[4] == [7, 2]
    assert [event["outcome"] for event in settled(run)] == [
        "applied",
        "rejected: this job cannot look at single samples",
        "rejected: a selection must name samples from 0 to 7",
    ]


def test_a_trainer_whose_data_is_fixed_says_so(run):
    ask(run, 1, recipe="ids [7, 2]")
    attempt(run, 2, kind=Fixed)
    assert settled(run)[0]["outcome"] == "rejected: this job's data cannot be chosen while it runs"


def test_a_choice_that_takes_long_is_given_up_for_a_stop(run):
    class Hurried(Trainer):
        def scorer(self, split):
            run.inbox.send("stop")
            return super().scorer(split)

    ask(run, 1, recipe="hardest 2")
    trainer = attempt(run, kind=Hurried)
    assert settled(run)[0]["outcome"] == "rejected: cancelled"
    assert (trainer.step, trainer.feed.selection) == (1, None)


def test_a_stop_for_a_later_step_is_no_hurry(run):
    run.inbox.post(Command("stop", at=5))
    ask(run, 1, recipe="hardest 2")
    attempt(run)
    assert settled(run)[0]["outcome"] == "applied"
