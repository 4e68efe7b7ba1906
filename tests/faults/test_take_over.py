"""A run of a machine that is gone is taken over, and whatever lives there all the same commits nothing more."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from test_ownership import move_elsewhere

from clew import api
from clew.checkpoints import CheckpointStore
from clew.cli.main import main
from clew.errors import UserError
from clew.runs import Run, State, Workspace
from clew.runs.files import read_json, write_json
from support import tiny_run, wait_until

pytestmark = pytest.mark.slow


def let_run_out(run: Run) -> None:
    """Let the owner be a process of another machine that was heard of last a while ago."""
    move_elsewhere(run.states)
    write_json(run.states.path, {**read_json(run.states.path), "lease_until": time.time() - 1})


def test_a_sleeping_owner_is_replaced_by_a_command_and_is_refused_when_it_wakes_up(tmp_path, capsys):
    run = tiny_run(Workspace(tmp_path), name="a", until=60, every=5, pause=0.05)
    attempt = run.states.queue()
    run.states.move(State.STARTING, attempt=attempt)
    log = tmp_path / "said"
    with log.open("wb") as said:
        words = [sys.executable, "-m", "clew.worker", str(run.path), str(attempt)]
        sleeper = subprocess.Popen(words, stdout=said, stderr=said)
    store = CheckpointStore(run.checkpoints)
    wait_until(lambda: len(store.all()) == 2)
    os.kill(sleeper.pid, signal.SIGSTOP)
    move_elsewhere(run.states)
    here = ["--workspace", str(tmp_path), "resume", "a", "--take-over"]

    assert main(here) == 2, "its lease lives"
    assert "it belongs to another-host, whose lease holds for" in capsys.readouterr().err
    assert run.states.read().attempt == attempt

    let_run_out(run)
    woken = threading.Timer(1.0, os.kill, (sleeper.pid, signal.SIGCONT))  # while its successor is at work
    woken.start()
    assert main(here) == 0
    assert "a: taken over from another-host; whatever lives there commits nothing more" in capsys.readouterr().out
    woken.join()
    assert sleeper.wait(timeout=60) == 5
    assert f"attempt {attempt} was replaced by attempt {attempt + 2}; nothing was written" in log.read_text()
    assert [event["step"] for event in run.events("metric")] == list(range(1, 61))
    whole = tiny_run(Workspace(tmp_path), name="whole", until=60)
    assert main(["--workspace", str(tmp_path), "resume", "whole"]) == 0
    assert run.result.metrics == whole.result.metrics
    assert (run.state, store.newest_good()[1]) == (State.COMPLETED, {})


def test_of_several_that_take_a_run_over_at_once_one_does(tmp_path):
    for number in range(20):
        run = tiny_run(Workspace(tmp_path), name=f"a{number}")
        attempt = run.states.queue()
        for state in (State.STARTING, State.RUNNING):
            run.states.move(state, attempt=attempt)
        let_run_out(run)
        barrier, told = threading.Barrier(4), []

        def take(run: Run = run, barrier: threading.Barrier = barrier, told: list[str] = told) -> None:
            barrier.wait(timeout=60)
            try:
                api.take_from_elsewhere(run)
                told.append(run.state)
            except UserError as error:
                told.append(error.what)

        together = [threading.Thread(target=take) for _ in range(4)]
        for one in together:
            one.start()
        for one in together:
            one.join(60)
        now = run.states.read()
        assert (now.state, now.attempt, now.reason) == (State.INTERRUPTED, 2, "taken over from another-host")
        assert told == [State.INTERRUPTED] * 4, "whoever goes on first then is the next owner"


def test_an_owner_that_gives_a_sign_of_life_in_that_moment_keeps_its_run(tmp_path, monkeypatch):
    run = tiny_run(Workspace(tmp_path), name="a")
    attempt = run.states.queue()
    for state in (State.STARTING, State.RUNNING):
        run.states.move(state, attempt=attempt)
    let_run_out(run)
    take = type(run.states).take_over

    def late(states, reason):
        states.renew(attempt)
        return take(states, reason)

    monkeypatch.setattr(type(run.states), "take_over", late)
    with pytest.raises(UserError, match="it belongs to another-host, whose lease holds for"):
        api.take_from_elsewhere(run)
    assert run.states.read().attempt == attempt


def test_what_belongs_to_nobody_is_not_taken(tmp_path):
    run = tiny_run(Workspace(tmp_path), name="a")
    before = run.states.read()
    api.take_from_elsewhere(run)
    assert run.states.read() == before
    assert socket.gethostname() != "another-host"
