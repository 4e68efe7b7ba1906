"""The screen beside a real worker: what is pressed happens in the run, and is seen to have happened."""

from __future__ import annotations

from pathlib import Path

import pytest
from hands import Hands, play

from clew.runs import State, Workspace
from clew.targets import LocalTarget
from support import tiny_run, wait_until

pytestmark = pytest.mark.slow


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
