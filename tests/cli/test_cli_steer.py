"""A live run is paused, told things, killed while it is paused, and goes on: from a second terminal."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from command_line import Cli, Spawn, has_counted, read_until

import clew as library
from clew.runs import Run, State
from support import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("borne")]


@pytest.fixture
def live(spawn: Spawn, project: Path) -> Run:
    """A run that stands at its seventh step, ready for commands."""
    process = spawn("run", "count.yaml", "--name", "a", "to=10", "hold_at=7")
    read_until(process, "started")
    wait_until(lambda: has_counted(project, "a", 7))
    return Run(project / "runs/a")


def test_a_run_is_paused_steered_killed_and_comes_back_paused(
    live: Run, clew: Cli, spawn: Spawn, project: Path
) -> None:
    paused = clew("pause", "a", "--wait")
    assert (paused.code, paused.out) == (0, "a: pause applied at step 7\n")
    assert live.state is State.PAUSED
    assert "paused" in clew("ls").out
    assert "step-00000007" in [path.name for path in live.checkpoints.iterdir()]

    refused = clew("set", "a", "lr=1", "--wait")
    what = "set rejected: this job has nothing that can be set while it runs"
    assert (refused.code, refused.err) == (2, f"clew: a: {what}\n")
    late = clew("note", "a", "too", "late", "--before", "7", "--wait")
    assert (late.code, late.err) == (2, "clew: a: note expired: it was for a step before 7, and 7 are done\n")
    silent = clew("note", "a", "later", "--at", "9", "--deadline", "0.1")
    assert silent.code == 1
    assert silent.err.startswith("clew: a: it has not answered within 0.1 s; the command 01")

    owner = live.states.read().owner
    assert owner is not None
    os.kill(owner.pid, signal.SIGKILL)
    wait_until(lambda: live.state is State.INTERRUPTED)
    (project / "gate").touch()
    spawn("resume", "a", "--detach").communicate(timeout=60)
    wait_until(lambda: live.state is State.PAUSED)
    assert clew("step", "a", "1", "--wait").out == "a: step applied at step 7; it pauses again at step 8\n"
    wait_until(lambda: live.state is State.PAUSED)
    assert clew("note", "a", "now").out.startswith("a: asked to note; it is written into the journal at once\n")
    later = clew("checkpoint", "a", "--at", "9").out
    assert later.startswith("a: asked to save; it saves after step 9\n")
    assert not has_counted(project, "a", 9)

    done = clew("resume", "a")
    assert done.code == 0
    assert done.out.startswith("a was paused; it goes on\n")
    assert live.state is State.COMPLETED
    told = [(event["verb"], event["at"], event["outcome"]) for event in live.events("command")]
    assert told[-5:-1] == [
        ("step", 7, "applied"),
        ("note", 8, "applied"),
        ("resume", 8, "applied"),
        ("note", 9, "applied"),
    ]
    assert told[-1] == ("checkpoint", 9, "applied")


def test_python_takes_hold_of_the_same_run(live: Run, project: Path) -> None:
    hold = library.attach("a", workspace=project)
    assert hold.pause(wait=30).step == 7
    assert hold.note("thinking", wait=True).step == 7
    with pytest.raises(library.UserError, match="a: pause rejected: save must be true or false, not 'no'"):
        hold.send("pause", {"save": "no"}, wait=True)
    with pytest.raises(library.UserError, match="there is no command 'paus'\n  did you mean 'pause'"):
        hold.send("paus", {})
    waiting = hold.note("never", when=library.When(at=50))
    assert waiting.step is None
    assert library.attach(live).abort(wait=True).step == 7
    wait_until(lambda: live.state is State.STOPPED)
    with pytest.raises(library.UserError, match="there is nothing to resume: it is over: stopped\n  clew resume a"):
        hold.resume()
    assert [path.name for path in (live.path / "inbox").iterdir()] == [f"{waiting.id}.json"]


def test_a_merge_from_python_says_all_that_one_from_the_terminal_does(live: Run, project: Path) -> None:
    hold = library.attach(live)
    with pytest.raises(library.UserError, match="a: merge rejected: "):  # this job has no weights
        hold.merge([".", "b@3"], "dare", weights=[1, 2], optimizer="keep", base="b@1", seed=4, wait=30)
    (event,) = (one for one in live.events("command") if one["verb"] == "merge")
    assert event["args"] == {
        "sources": [".", "b@3"],
        "method": "dare",
        "optimizer": "keep",
        "weights": [1, 2],
        "base": "b@1",
        "seed": 4,
    }
    hold.abort(wait=True)


def test_who_waits_is_told_that_the_run_has_ended_before(live: Run, spawn: Spawn) -> None:
    process = spawn("note", "a", "never", "--at", "50", "--wait")
    wait_until(lambda: any((live.path / "inbox").iterdir()))
    library.attach(live).stop(wait=True)
    out, _ = process.communicate(timeout=30)
    assert (process.returncode, out) == (1, "clew: a: the run ended before it could note: stopped\n")


def test_who_waits_for_a_run_that_fails_is_told_where_the_reason_stands(spawn: Spawn, project: Path) -> None:
    process = spawn("run", "count.yaml", "--name", "a", "to=10", "hold_at=7", "fail_at=8")
    read_until(process, "started")
    wait_until(lambda: has_counted(project, "a", 7))
    waits = spawn("note", "a", "never", "--at", "50", "--wait")
    wait_until(lambda: any((project / "runs/a/inbox").iterdir()))
    (project / "gate").touch()
    out, _ = waits.communicate(timeout=60)
    assert out == "clew: a: the run ended before it could note: failed\n  clew show a says why\n"
    process.communicate(timeout=60)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("step", "a", "two"), "step: argument N: invalid int value: 'two'"),
        (("set", "a", "lr"), "'lr' is not key=value\n  write for instance lr=1e-4"),
        (("set", "a"), "set: the following arguments are required: key=value"),
        (("pause", "a", "--save", "--latest"), "pause: argument --latest: not allowed with argument --save"),
        (("pause", "nobody"), "there is no run or pipeline 'nobody'"),
    ],
)
def test_words_that_make_no_sense_are_refused_at_once(words, error, clew: Cli, project: Path) -> None:
    clew("run", "count.yaml", "--name", "a", "to=2")
    refused = clew(*words)
    assert refused.code == 2
    assert error in refused.err
