"""``merge`` as a command of a live run: what it takes, what it says, and that it happens again after a kill."""

from __future__ import annotations

import json

import pytest
import torch

from clew.checkpoints import CheckpointStore
from clew.checkpoints.state import load_state, save_state
from clew.live.merging import merge_into, open_state
from clew.runs import Command, Owner, RunInfo, State, create_run
from clew.session import CheckpointConfig, RunStopped, Session


class Surface:
    """Adds one in every step, with a velocity that an optimizer would keep."""

    def __init__(self) -> None:
        self.weight, self.velocity, self.step = torch.zeros(3), torch.zeros(3), 0

    def save(self, directory):
        state = {"model": {"w": self.weight}, "velocity": self.velocity, "step": self.step}
        save_state(directory, "trainer", state)

    def load(self, directory):
        state = load_state(directory, "trainer")
        self.weight, self.velocity, self.step = state["model"]["w"], state["velocity"], state["step"]

    def merge(self, request):
        facts = merge_into({"w": self.weight}, request, lambda path: open_state(path, "trainer"))
        if request.optimizer == "reset":
            self.velocity = torch.zeros(3)
        return facts


class Killed(BaseException):
    """What a process that is gone leaves behind."""


@pytest.fixture
def run(tmp_path):
    return create_run(tmp_path / "runs", RunInfo(id="a", job="own"), "job: own\n", {})


@pytest.fixture
def other(tmp_path):
    """Another run of the workspace, with checkpoints at two steps."""
    made = create_run(tmp_path / "runs", RunInfo(id="b", job="own"), "job: own\n", {})
    for step in (10, 20):
        surface = Surface()
        surface.weight, surface.step = torch.full((3,), float(step)), step
        CheckpointStore(made.checkpoints).save(step, surface.save, metric=1 / step)
    return made


def attempt(run, until=6, *, every=2, killed_at=None, surface=None):
    number = run.states.queue()
    run.states.move(State.STARTING, attempt=number)
    run.states.move(State.RUNNING, attempt=number, owner=Owner.current())
    surface, end = surface or Surface(), State.COMPLETED
    try:
        with Session(run, None, number) as session:
            session.attach(surface, CheckpointConfig(every=every))
            while surface.step < until:
                surface.step += 1
                surface.velocity = surface.velocity + 1
                surface.weight = surface.weight + surface.velocity
                if surface.step == killed_at:
                    raise Killed
                session.boundary(surface.step)
    except RunStopped as stopped:
        end = stopped.state
    except Killed:
        end = State.INTERRUPTED
    run.states.move(end, attempt=number)
    return surface


def ask(run, at=3, **args):
    return run.inbox.post(Command("merge", args, at=at))


def settled(run):
    return [event for event in run.events("command") if event["verb"] == "merge"]


def test_other_checkpoints_become_one_with_the_live_weights_and_the_result_says_it(run, other):
    ask(run, sources=["b@10", "b@best", "."], weights=[1, 1, 2])
    surface = attempt(run, 3)
    # The weights were 1 + 2 + 3 when it came.
    assert surface.weight.tolist() == [(10 + 20 + 2 * 6) / 4] * 3
    assert surface.velocity.tolist() == [0.0] * 3
    (event,) = settled(run)
    result = event["result"]
    assert event["outcome"] == "applied"
    assert result["sources"] == ["b@10", "b@20", "."]
    assert result["shares"][2] == {"source": ".", "share": 0.5}
    assert (result["method"], result["optimizer"], result["tensors"]) == ({"type": "average"}, "reset", 1)
    assert json.loads(json.dumps(result)) == result


def test_the_run_s_own_name_is_its_own_weights_and_the_optimizer_may_be_kept(run, other):
    ask(run, sources=["a", "b@10"], optimizer="keep", method={"type": "linear", "normalize": False}, weights=[1, -1])
    surface = attempt(run, 3)
    assert surface.weight.tolist() == [6 - 10] * 3
    assert surface.velocity.tolist() == [3.0] * 3
    assert settled(run)[0]["result"]["optimizer"] == "keep"


def test_its_own_earlier_checkpoints_can_be_averaged_and_a_base_be_named(run, other):
    ask(run, at=5, sources=["2", "4"], method="swa")
    ask(run, at=5, sources=[".", "b@10"], base="2", method={"type": "task_arithmetic", "scale": 0.5})
    surface = attempt(run, 5)
    swa, arithmetic = (event["result"] for event in settled(run))
    assert (swa["sources"], arithmetic["base"]) == (["@2", "@4"], "@2")
    # Steps 2 and 4 hold 3 and 10.
    assert surface.weight.tolist() == [3 + 0.5 * ((6.5 - 3) + (10 - 3))] * 3


def test_a_run_that_is_killed_afterwards_merges_again_with_what_it_merged_before(run, other):
    ask(run, sources=["b@last", "."])
    attempt(run, killed_at=4, every=100)
    assert settled(run)[0]["result"]["sources"] == ["b@20", "."]
    # What was the last one is not any more, and what it used is gone from the other run.
    store = CheckpointStore(other.checkpoints)
    store.save(30, Surface().save)
    store.prune(1)
    (other.checkpoints / "step-00000020").exists() and _remove(other.checkpoints / "step-00000020")
    again = attempt(run)
    twin = create_run(run.path.parent, RunInfo(id="twin", job="own"), "job: own\n", {})
    (twin.path / "kept").mkdir()
    (run.path / "kept" / "b@20").rename(twin.path / "kept" / "b@20")
    ask(twin, sources=["b@20", "."])
    whole = attempt(twin)
    assert torch.equal(again.weight, whole.weight) and torch.equal(again.velocity, whole.velocity)
    assert len(settled(run)) == 1


def _remove(folder):
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        ({}, "sources must be a list such as ['RUN@100', '.'], not None (. is the weights that train)"),
        ({"sources": "b"}, "sources must be a list"),
        ({"sources": ["."]}, "a merge needs at least two models, not 1"),
        ({"sources": [".", "b@10"], "method": "fishr"}, "unknown method 'fishr' (did you mean 'fisher'?)"),
        ({"sources": [".", "b@10"], "method": "fisher"}, "this job cannot estimate the Fisher information"),
        ({"sources": [".", "b@10"], "method": 3}, "method must be a name, or type and options, not 3"),
        ({"sources": [".", "b@10"], "weights": [1]}, "1 weights for 2 sources"),
        ({"sources": [".", "b@10"], "weights": ["1", True]}, "weights must be a list of numbers"),
        ({"sources": [".", "b@10"], "optimizer": "kep"}, "optimizer must be keep or reset, not 'kep' (did you mean"),
        ({"sources": [".", "b@10"], "seed": -1}, "seed must be a whole number from 0"),
        ({"sources": [".", "b@10"], "base": 3}, "base must be a checkpoint such as RUN@100, not 3"),
        ({"sources": [".", "b@11"]}, "there is no checkpoint '11'"),
        ({"sources": [".", "c@1"]}, "there is no run 'c'"),
        ({"sources": [".", "b@10"], "metod": "swa"}, "merge has no argument 'metod'; did you mean 'method'?"),
    ],
)
def test_nonsense_is_rejected_with_a_reason_and_the_run_goes_on_as_if_nothing_had_come(args, reason, run, other):
    ask(run, **args)
    surface = attempt(run, 4)
    (event,) = settled(run)
    assert event["outcome"].startswith("rejected: ") and reason in event["outcome"]
    assert surface.weight.tolist() == [10.0] * 3 and surface.velocity.tolist() == [4.0] * 3


def test_a_job_into_which_nothing_can_be_merged_says_so(run, other):
    class Plain(Surface):
        merge = None

    ask(run, sources=[".", "b@10"])
    attempt(run, 4, surface=Plain())
    assert settled(run)[0]["outcome"] == "rejected: nothing can be merged into this job"


# What files beside the weights say.


def _describe(folder, vocabulary, **config):
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text(json.dumps({"rope_theta": 1e4, "_name_or_path": "x", **config}))
    parts = {"model": {"vocab": vocabulary, "merges": []}, "normalizer": None, "pre_tokenizer": None}
    (folder / "model" / "tokenizer.json").write_text(json.dumps(parts))


class Described(Surface):
    """Says in its checkpoints what its model is."""

    vocabulary, config = {"a": 0, "b": 1}, {}

    def save(self, directory):
        super().save(directory)
        _describe(directory, self.vocabulary, **self.config)


@pytest.mark.parametrize(
    ("vocabulary", "config", "reason"),
    [
        ({"a": 1, "b": 0}, {}, "the vocabularies differ in 2 tokens: 'a' is 0 and 1"),
        ({"a": 0, "b": 1}, {"rope_theta": 500.0}, "rope_theta is 10000.0 and 500.0"),
    ],
)
def test_a_model_that_means_something_else_is_refused_though_its_shapes_fit(vocabulary, config, reason, run, tmp_path):
    other = create_run(tmp_path / "runs", RunInfo(id="b", job="own"), "job: own\n", {})
    surface = Described()
    surface.vocabulary, surface.config = vocabulary, config
    CheckpointStore(other.checkpoints).save(10, surface.save)
    ask(run, sources=[".", "b@10"])
    ask(run, sources=[".", "2"])
    assert attempt(run, 3, surface=Described()).step == 3
    refused, taken = settled(run)
    assert refused["outcome"] == f"rejected: b@10 cannot be merged with this run: {reason}"
    assert taken["outcome"] == "applied"
