"""Children, replays and comparisons, as somebody at a terminal asks for them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import walks
from command_line import Cli, Spawn

from clew.runs import Run, State
from support import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("borne")]


@pytest.fixture
def walk(project: Path, clew: Cli) -> Run:
    """A walk that has come to its end, with checkpoints at steps 5 and 10."""
    shutil.copy(walks.__file__, project / "walks.py")
    (project / "walk.yaml").write_text("job: walks.py:walk\n")
    assert clew("run", "walk.yaml", "--name", "a").code == 0
    return Run(project / "runs/a")


@pytest.fixture
def live(project: Path, clew: Cli, spawn: Spawn) -> Run:
    """A walk that stands at step 3, paused."""
    shutil.copy(walks.__file__, project / "walks.py")
    (project / "walk.yaml").write_text("job: walks.py:walk\n")
    detached(spawn, "run", "walk.yaml", "--name", "a", "pause=0.01", "steps=400", "--detach")
    assert clew("pause", "a", "--wait").code == 0
    return Run(project / "runs/a")


def detached(spawn: Spawn, *words: str) -> str:
    """A command line whose worker outlives it, so it needs a process of its own."""
    process = spawn(*words)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0, said
    return said


def step_of(run: Run) -> int:
    return max(event["at"] for event in run.events("command"))


def test_a_fork_says_what_it_is_and_how_to_get_at_it(walk, clew, project):
    made = clew("fork", "a", "--at", "5", "--name", "b", "lr=0.5", "--hold")
    assert (made.code, made.out) == (
        0,
        "b: forked from a at step 5\n  lr = 0.5\n  clew resume b starts it\n",
    )
    shown = clew("show", "b").out
    assert "forked from  a at step 5 with lr=0.5" in shown
    assert clew("resume", "b").code == 0
    assert Run(project / "runs/b").state is State.COMPLETED


def test_what_a_child_is_asked_beside_its_config_is_said_and_its_refusal_is_told(walk, clew):
    made = clew("fork", "a", "--at", "5", "--name", "b", "fade=3", "lr=0.5", "--hold")
    assert made.out == (
        "b: forked from a at step 5\n  lr = 0.5\n  at its first step: set fade=3\n  clew resume b starts it\n"
    )
    refusal = "set fade=3 rejected: fade must be at least 0 and at most 1, not '3' (by fork)"
    assert f"b: step 5: {refusal}\n" in clew("resume", "b").out
    shown = clew("show", "b").out
    assert "its fork     set fade=3 rejected: fade must be at least 0 and at most 1" in shown
    assert "its fork" not in clew("show", "a").out


def test_a_child_that_begins_where_its_parent_ends_has_no_step_left_and_says_so(walk, clew):
    assert clew("run", "walk.yaml", "--name", "whole", "every=12").code == 0
    made = clew("fork", "whole", "--name", "b", "lr=0.5", "--hold")
    assert made.out == (
        "b: forked from whole at step 12\n  lr = 0.5\n  no step is left to make; steps=N makes some\n"
        "  clew resume b starts it\n"
    )
    assert "no step" not in clew("fork", "whole", "--name", "c", "lr=0.5", "steps=13", "--hold").out
    assert "no step" not in clew("fork", "a", "--name", "d", "lr=0.5", "--hold").out


def test_nobody_is_told_to_wait_for_a_run_that_is_over(walk, clew):
    refused = clew("fork", "a", "--at", "7")
    assert refused.err == "clew: a: there is no checkpoint '7'\n  there are 5, 10\n"


def test_a_fork_of_a_live_run_goes_on_by_itself(live, clew, spawn, project):
    step = step_of(live)
    made = detached(spawn, "fork", "a", "--name", "b", f"steps={step + 50}", "pause=0")
    assert made.startswith(f"b: forked from a at step {step}\n")
    assert "it runs; clew resume b follows it" in made
    child = Run(project / "runs/b")
    assert clew("resume", "b").code == 0
    assert child.state is State.COMPLETED
    assert live.state is State.PAUSED
    assert clew("abort", "a", "--wait").code == 0


def test_the_process_goes_on_as_the_child_and_whoever_follows_the_parent_is_told(live, clew, project):
    made = clew("fork", "a", "--name", "b", "--switch", f"steps={step_of(live) + 50}")
    assert "the process of a goes on as b; clew resume a goes on with a" in made.out
    child = Run(project / "runs/b")
    wait_until(lambda: child.state is State.COMPLETED)
    assert live.state is State.STOPPED
    shown = clew("show", "a").out
    assert "goes on as   b" in shown
    assert "this process goes on as b from step" in shown
    assert (child.path / "result.json").is_file()
    assert (live.path / "result.json").is_file()
    assert (child.log_path(1)).is_file()


def test_nonsense_is_told_with_what_there_is(walk, clew):
    for words, what in [
        (["fork", "a", "--at", "7"], "clew: a: there is no checkpoint '7'"),
        (["fork", "a", "steps=10"], "clew: a: steps cannot be 10: 10 steps are done where the child begins"),
        (["fork", "a", "lr_mul=x"], "clew: a: lr is multiplied by a number, not by 'x'"),
        (["fork", "a", "speed=1"], "clew: there is nothing 'speed' to change in a"),
        (["fork", "a", "--on", "slurm"], "clew: there is no target 'slurm'"),
        (["fork", "nobody"], "there is no run or pipeline 'nobody'"),
        (["fork", "a", "--select", "hardest"], "hardest"),
        (["replay", "nobody"], "there is no run or pipeline 'nobody'"),
        (["verify", "a", "nobody"], "there is no run or pipeline 'nobody'"),
    ]:
        refused = clew(*words)
        assert refused.code == 2
        assert what in refused.err
    assert [path.name for path in walk.path.parent.iterdir()] == ["a"]


def test_a_replay_and_a_comparison_say_how_far_they_came(walk, clew):
    again = clew("replay", "a", "--name", "again")
    assert again.code == 0
    assert again.out.splitlines() == [
        "again does again what a did",
        "a and again are the same up to step 12: 36 figures and 12 hashes of the state",
    ]
    assert "replay of    a" in clew("show", "again").out
    same = clew("verify", "a", "again")
    assert (same.code, same.out.splitlines()) == (0, again.out.splitlines()[1:])
    assert clew("run", "walk.yaml", "--name", "other", "lr=2").code == 0
    other = clew("verify", "a", "other")
    assert other.code == 1
    assert other.out.startswith("a and other differ at step 1: position is ")
