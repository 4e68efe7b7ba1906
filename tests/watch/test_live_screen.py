"""The screen beside a real worker: what is pressed happens in the run, and is seen to have happened."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hands import Hands, play
from story import told

from clew import api
from clew.runs import Run, State, Workspace
from clew.session.live import LiveRun
from clew.targets import LocalTarget
from support import tiny_run, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("borne")]


def test_a_worker_is_paused_stepped_set_and_stopped_from_the_screen(tmp_path: Path) -> None:
    run = tiny_run(Workspace(tmp_path), name="a", until=100_000, pause=0.005, every=1000)
    worker = LocalTarget().launch(run)
    wait_until(lambda: run.state is State.RUNNING)

    async def body(hands: Hands) -> None:
        await hands.sees("a  running", "loss", "step/s")
        await hands.press("p")
        await hands.sees("a  paused", "pause applied")
        await hands.press("s")
        await hands.type("3")
        await hands.sees("step steps=3 applied")
        await hands.press("e")
        await hands.type("lr=0.5")
        await hands.sees("set lr=0.5 applied")
        await hands.press("e")
        await hands.type("lr=-1")
        await hands.sees("rejected: lr must be at least 0, not '-1'")
        await hands.press("r")
        await hands.sees("resume applied", "a  running")
        await hands.press("x", "y")
        await hands.sees("a  stopped", "stop applied", "the run is over: stopped")

    play(run, body, size=(120, 40))
    wait_until(lambda: worker.poll() is State.STOPPED)
    assert [event["verb"] for event in run.events("command")] == ["pause", "step", "set", "set", "resume", "stop"]


def test_a_fork_that_is_asked_for_runs_and_is_looked_at(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    run = tiny_run(workspace, name="a", until=100_000, pause=0.005, every=1000)
    workers = [LocalTarget().launch(run)]
    wait_until(lambda: run.state is State.RUNNING)

    def fork(run: Run, *, name: str, overrides: Sequence[str]) -> str:
        child = api.fork(run, name=name, overrides=overrides, hold=True, wait=60).child
        assert child is not None
        workers.append(LocalTarget().launch(child))
        return child.id

    async def body(hands: Hands) -> None:
        await hands.press("f", "b", "tab")
        await hands.type("pause=0.01")
        await hands.sees("b goes on from a", "forks: b@", "(running)")
        await hands.press("o", "down", "enter")
        await hands.sees(" b  running", "forked from a@")
        await hands.press("x", "y")
        await hands.sees(" b  stopped")

    play(run, body, size=(120, 40), fork=fork)
    assert run.state is State.RUNNING
    LiveRun(run).stop(wait=60)
    wait_until(lambda: all(worker.poll() is State.STOPPED for worker in workers))


def test_the_verb_draws_in_a_terminal_and_leaves_it_with_q(tmp_path: Path) -> None:
    told(tmp_path / "runs")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "clew.cli", "watch", "--workspace", str(tmp_path)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"},
        start_new_session=True,
    )
    os.close(theirs)
    seen = b""
    while b"pause applied" not in seen:  # the test's deadline holds
        seen += os.read(ours, 65536)
    os.write(ours, b"q")
    try:
        while chunk := os.read(ours, 65536):
            seen += chunk
    except OSError:  # the other end is closed
        pass
    assert process.wait(timeout=60) == 0
    os.close(ours)
    assert b"Traceback" not in seen
