import json
import socket
import time

import pytest
from plan_support import Outcome, stage

from clew.errors import UserError
from clew.runs import State, Workspace


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "ws")


def lines(workspace):
    return [json.loads(line) for line in (workspace.root / "told.jsonl").read_text().splitlines()]


def test_failure_waiting_and_completion_are_told(workspace):
    done = Outcome(
        workspace, {"a": stage(error="ValueError")}, ["abort"], on_failure="wait", notify={"file": "told.jsonl"}
    )
    failure, waiting, completion = lines(workspace)
    assert {item["pipeline"] for item in lines(workspace)} == {"p"}
    assert (failure["event"], failure["stage"], failure["run"], failure["state"]) == ("failure", "a", "p.a", "failed")
    assert (waiting["event"], waiting["reason"]) == ("waiting", "ValueError: it went wrong")
    assert (completion["event"], completion["state"]) == ("completion", "failed")
    assert done.state is State.FAILED


def test_a_dead_webhook_neither_fails_nor_delays(workspace):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes the connection and never answers
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        notify = {"webhook": {"url": url}, "linger_seconds": 0.2}
        start = time.monotonic()
        stages = {"a": stage(error="ValueError", on_failure="continue"), "b": stage()}
        done = Outcome(workspace, stages, notify=notify)
        assert time.monotonic() - start < 8
    assert (done.state, done.launched) == (State.FAILED, ["p.a", "p.b"])


def test_a_secret_that_is_missing_shows_before_anything_runs(workspace, monkeypatch):
    monkeypatch.delenv("NO_SUCH", raising=False)
    with pytest.raises(UserError, match="the environment variable 'NO_SUCH' is not set"):
        Outcome(workspace, {"a": stage()}, notify={"webhook": {"url": "http://127.0.0.1/", "secret_env": "NO_SUCH"}})
    assert not workspace.runs.exists()


def test_who_is_told_changes_no_result(workspace):
    Outcome(workspace, {"a": stage()})
    assert Outcome(workspace, {"a": stage()}, notify={"file": "told.jsonl"}).launched == []
