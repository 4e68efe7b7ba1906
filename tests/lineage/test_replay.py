"""A run is repeated from its config and its journal, however much it was steered."""

from __future__ import annotations

import time

import pytest
import walks
from walks import ask, attempt, made

from clew import api
from clew.errors import UserError
from clew.lineage.compare import compare
from clew.lineage.replay import ancestry, commands_of, replay
from clew.runs import Run, State, Workspace
from clew.targets import LocalTarget
from clew.targets.watching import Silent, follow
from support import wait_until


def positions(run: Run) -> dict[int, float]:
    return {
        event["step"]: event["values"]["position"] for event in run.events("metric") if "position" in event["values"]
    }


def steered(workspace: Workspace) -> tuple[Run, Run]:
    """A run with everything done to it that can be, and the child as which it went on."""
    other = made(workspace, "other", seed=7)
    attempt(other)
    run = made(workspace, "a", steps=30)
    ask(run, "pause", at=0)
    for at, verb, args in [
        (1, "set", {"lr": 0.5}),
        (2, "set", {"lr": "*3"}),
        (3, "checkpoint", {"tag": "early"}),
        (4, "select", {"recipe": "hardest 40%"}),
        (5, "evaluate", {}),
        (6, "merge", {"sources": [".", "other@10"], "method": "average"}),
        (7, "pause", {}),
        (7, "note", {"text": "how far?"}),
        (7, "step", {"steps": 2}),
        (9, "resume", {}),
        (10, "reset", {"to": "early"}),
        (11, "select", {"recipe": "all"}),
        (12, "reset", {"optimizer": True}),
        (13, "set", {"fade": 0.25}),
    ]:
        ask(run, verb, at=at, **args)
    worker = LocalTarget().launch(run)
    wait_until(lambda: run.state is State.PAUSED)
    api.fork(run, at=14, name="b", overrides=["lr=2", "lr_mul=0.5"], switch=True, wait=False, workspace=workspace)
    ask(run, "resume", at=0)
    assert follow(worker, Silent(), "") is State.STOPPED
    child = Run(workspace.runs / "b")
    ask(child, "set", at=20, lr=0.1)
    ask(child, "reset", at=21, to=20)
    wait_until(lambda: child.state is State.COMPLETED)
    wait_until(lambda: worker.poll() is State.STOPPED and worker.is_gone)
    return run, child


@pytest.mark.slow
def test_a_run_with_all_that_can_be_done_to_it_is_repeated_bit_by_bit(workspace):
    run, child = steered(workspace)
    applied = [
        event["verb"] for one in (run, child) for event in one.events("command") if event["outcome"] == "applied"
    ]
    assert len(applied) >= 16
    assert {"pause", "set", "select", "fork", "merge", "reset", "evaluate", "checkpoint"} <= set(applied)
    # What it used is gone elsewhere: the other run, and the checkpoint that it went back to.
    for path in (workspace.runs / "other" / "checkpoints").glob("step-*/*"):
        path.unlink()
    found = replay(child, name="again")
    assert found.comparison.difference is None
    assert (found.comparison.steps, found.state, found.unlike) == (30, State.COMPLETED, [])
    assert found.comparison.digests == 30
    assert [one.id for one in found.runs] == ["again-of-a", "again"]
    assert positions(found.runs[0]) | positions(found.runs[1]) == positions(run) | positions(child)
    assert found.runs[1].info.replay_of == "b"


@pytest.mark.slow
def test_a_run_that_was_killed_and_resumed_is_repeated_as_if_it_had_not_been(workspace):
    run = made(workspace, "a")
    for at, verb, args in [(3, "set", {"lr": 0.5}), (6, "select", {"recipe": "easiest 5"}), (7, "evaluate", {})]:
        ask(run, verb, at=at, **args)
    attempt(run, killed_at=8)
    attempt(run)
    found = replay(run)
    assert (found.comparison.difference, found.comparison.steps) == (None, 12)


@pytest.mark.slow
def test_a_replay_ends_at_the_first_step_that_differs_and_says_what_does(workspace):
    run = made(workspace, "a", steps=200, pause=0.02)
    attempt_with_a_lie(run)
    began = time.monotonic()
    found = replay(run, name="again")
    assert str(found.comparison.difference).startswith("step 4: position is ")
    assert found.state is State.STOPPED
    assert max(positions(Run(workspace.runs / "again"))) < 200
    assert time.monotonic() - began < 60


def attempt_with_a_lie(run: Run) -> None:
    """Somebody changes what no command says."""
    step = walks.Walk.step

    def lying(self: walks.Walk) -> None:
        step(self)
        self.position += 1e-9 if self.done == 4 else 0.0

    walks.Walk.step = lying
    try:
        ask(run, "set", at=6, steps=10)
        attempt(run)
    finally:
        walks.Walk.step = step


def test_what_is_replayed_is_what_was_understood_then(workspace):
    run = made(workspace, "a")
    ask(run, "set", at=2, lr="*0.5")
    ask(run, "checkpoint", at=5, tag="t")
    ask(run, "reset", at=6, to="best")  # there is none
    ask(run, "reset", at=7, to="t")
    ask(run, "fly", at=8)
    ask(run, "select", at=8, recipe="hardest 5")
    attempt(run)
    (link,) = ancestry(run)
    asked = [(command.verb, command.at, command.args) for command in commands_of(link)]
    assert asked[:3] == [("set", 2, {"lr": 0.5}), ("checkpoint", 5, {}), ("reset", 7, {"to": "5"})]
    (verb, at, args) = asked[3]
    assert (verb, at) == ("select", 8)
    assert "stored" in args


def test_runs_are_compared_by_what_both_of_them_tell(workspace):
    one, same, other = made(workspace, "a"), made(workspace, "b", pause=0.001), made(workspace, "c", lr=1.5)
    for run in (one, same, other):
        attempt(run)
    assert compare(one, same).difference is None
    assert (compare(one, same).steps, compare(one, same).digests) == (12, 12)
    assert compare(one, other).difference.step == 1


def test_runs_that_have_nothing_in_common_are_not_called_the_same(workspace):
    one, other = made(workspace, "a"), made(workspace, "b")
    attempt(one)
    assert not compare(one, other).is_conclusive


def test_a_run_whose_ancestor_is_gone_cannot_be_replayed(workspace):
    run = made(workspace, "a")
    attempt(run)
    child = api.fork(run, at=5, hold=True, workspace=workspace).child
    attempt(child)
    (run.path / "run.json").unlink()
    with pytest.raises(UserError, match="its ancestor a is gone"):
        replay(child)


def test_a_name_that_is_taken(workspace):
    run = made(workspace, "a")
    attempt(run)
    with pytest.raises(UserError, match="a run named 'a' exists already"):
        replay(run, name="a")
