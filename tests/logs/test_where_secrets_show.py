"""What is written for people and programs besides the log, each by the one place that writes it."""

import json

import pytest

from clew.notify import NotifyConfig, open_notifier
from clew.reports.failures import failures_section
from clew.reports.stages import Stage, StageView
from clew.runs import Failure, JobResult, State, Workspace
from support import tiny_run

SECRET = "v9-q7-zz-secret-3"


@pytest.fixture(autouse=True)
def secret(monkeypatch):
    monkeypatch.setenv("SERVICE_TOKEN", SECRET)
    monkeypatch.setenv("PLAIN_NAME", "http://127.0.0.1:9/private-place")


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path)


def test_a_result_is_saved_without_them(workspace):
    run = tiny_run(workspace, name="r")
    failure = Failure("ValueError", f"no {SECRET}", ["first", f"last {SECRET}"])
    JobResult("r", "count", "failed", 1.0, 1, notes={"kept": SECRET}, failure=failure).save(run.path)
    assert run.result.failure == Failure("ValueError", "no [redacted]", ["first", "last [redacted]"])
    assert run.result.notes == {"kept": SECRET}  # what a job returns is data


def test_events_are_told_without_them(workspace):
    config = NotifyConfig(file="told.jsonl", webhook={"url_env": "PLAIN_NAME", "attempts": 1}, linger_seconds=0)
    with open_notifier(config, root=workspace.root, journal=workspace.root / "journal.jsonl") as notifier:
        notifier.tell("failure", run="r", reason=f"no {SECRET} for http://127.0.0.1:9/private-place", seconds=1.5)
    for name in ("told.jsonl", "journal.jsonl"):
        said = json.loads((workspace.root / name).read_text().splitlines()[0])
        assert (said["reason"], said["seconds"]) == ("no [redacted] for [redacted]", 1.5)


def test_a_report_leaves_them_out_of_logs_that_nobody_filtered(workspace):
    run = tiny_run(workspace, name="r")
    run.states.queue()
    run.states.move(State.FAILED, attempt=1)
    run.log_path(1).write_text(f"one {SECRET}\ntwo\n")
    shown = repr(failures_section([Stage(StageView("r", "count", run))], of="run"))
    assert SECRET not in shown
    assert "one [redacted]\\ntwo" in shown
