"""What a worker and its children print, as it reaches the log and whoever reads it."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from clew.jobs import create_job_run, load_job
from clew.runs import State, Workspace
from clew.targets import LocalTarget
from clew.targets.watching import Silent, follow
from support import tiny_run, wait_until

pytestmark = pytest.mark.slow

TALK = f"{Path(__file__).parent / 'talking_jobs.py'}:talk"
SECRET = "v9-q7-zz-secret-1"
ADDRESS = "example.org/private/place"


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.setenv("SERVICE_TOKEN", SECRET)
    monkeypatch.setenv("PLAIN_NAME", ADDRESS)
    return Workspace(tmp_path)


def talk(workspace, **config):
    return create_job_run(workspace, load_job({"job": TALK, "name": "r", **config}))


def run_to_end(run):
    return follow(LocalTarget().launch(run), Silent())


def test_no_secret_reaches_any_file_of_a_run(workspace):
    run = talk(workspace, fail=True)
    assert run_to_end(run) is State.FAILED
    log = run.log_path(1).read_text()
    for line in ("print [redacted] [redacted]", "descriptor [redacted]", "library [redacted]"):
        assert f"{line}\n" in log
    assert "child [redacted] [redacted]\n" in log
    assert "WARNING somebody: logging [redacted]\n" in log
    assert "WARNING py.warnings: UserWarning: warning [redacted] where=" in log
    for path in run.path.rglob("*"):
        assert path.is_dir() or SECRET not in path.read_text(errors="replace"), path
        assert path.is_dir() or ADDRESS not in path.read_text(errors="replace"), path


def test_a_failure_is_told_everywhere_without_the_secret_and_with_its_traceback(workspace):
    run = talk(workspace, fail=True)
    run_to_end(run)
    failure, wanted = run.result.failure, "cannot log in with [redacted]"
    assert failure.reason == wanted
    assert failure.log_tail[-1] == f"ValueError: {wanted}"
    assert [event["reason"] for event in run.events("failure")] == [wanted]
    assert run.states.read().reason == wanted


def test_the_worker_tells_its_milestones_with_fields(workspace):
    run = tiny_run(workspace, name="r", until=10, kill_at=7)
    run_to_end(run)
    run_to_end(run)
    said = [line.split(maxsplit=2)[2] for line in run.log_path(2).read_text().splitlines()]
    assert said[0].startswith("INFO clew.worker: attempt started run=r attempt=2 job=")
    assert said[1:4] == [
        "INFO clew.session: checkpoint restored run=r attempt=2 step=5",
        "INFO clew.session: checkpoint saved run=r attempt=2 step=10",
        said[3],
    ]
    assert said[3].startswith("INFO clew.session: artifact published run=r attempt=2 name=walk.txt bytes=")
    assert said[4].startswith("INFO clew.worker: attempt ended run=r attempt=2 state=completed seconds=")
    assert len(said) == 5


def test_workers_inherit_level_and_form(workspace, monkeypatch):
    monkeypatch.setenv("CLEW_LOG", "verbose")
    monkeypatch.setenv("CLEW_LOG_FORMAT", "json")
    run = talk(workspace, fail=True)
    run_to_end(run)
    lines = run.log_path(1).read_text().splitlines()
    said = [json.loads(line) for line in lines if line.startswith("{")]
    messages = [item["message"] for item in said]
    assert [message for message in messages if "loaded" in message or "started" in message] == [
        "attempt started",
        "job loaded",
    ]
    assert {(item["run"], item["attempt"]) for item in said if item["logger"].startswith("clew")} == {("r", 1)}
    broken = next(item for item in said if "traceback" in item)
    assert broken["traceback"].endswith("ValueError: cannot log in with [redacted]")


def test_a_quiet_worker_only_warns(workspace, monkeypatch):
    monkeypatch.setenv("CLEW_LOG", "quiet")
    run = tiny_run(workspace, name="r")
    assert run_to_end(run) is State.COMPLETED
    assert run.log_path(1).read_text() == ""


def test_the_whole_log_is_there_when_a_run_is_over(workspace, tmp_path):
    run = talk(workspace, gate=str(tmp_path / "gate"))
    worker = LocalTarget().launch(run)
    (tmp_path / "gate").touch()
    wait_until(lambda: run.states.read().state is State.COMPLETED)
    assert run.log_path(1).read_text().count("last words ") == 200 * 50
    assert worker.poll() is State.COMPLETED


def test_a_run_outlives_the_filter_of_its_log(workspace, tmp_path):
    run = talk(workspace, gate=str(tmp_path / "gate"))
    worker = LocalTarget().launch(run)
    wait_until(lambda: any(run.events("metric")))
    worker._log.kill()
    worker._log.wait(20)
    (tmp_path / "gate").touch()
    assert follow(worker, Silent()) is State.COMPLETED
    assert run.result.metrics == {"said": 1.0}


def test_the_last_words_of_a_killed_worker_are_kept(workspace, tmp_path):
    run = talk(workspace, gate=str(tmp_path / "gate"))
    worker = LocalTarget().launch(run)
    wait_until(lambda: any(run.events("metric")))
    os.kill(run.states.read().owner.pid, signal.SIGKILL)
    assert follow(worker, Silent()) is State.INTERRUPTED
    assert any("warning [redacted]" in line for line in run.result.failure.log_tail)


def test_what_a_job_leaves_running_does_not_hold_up_the_end_of_a_run(workspace):
    run = talk(workspace, child=True)
    worker = LocalTarget().launch(run)
    began = time.monotonic()
    keeper = worker._log
    assert follow(worker, Silent()) is State.COMPLETED
    assert time.monotonic() - began < 25
    assert keeper.poll() is None
    keeper.kill()
    keeper.wait(20)


@pytest.mark.parametrize("named_by", ["workspace", "target"])
def test_variables_that_only_others_name_are_secret_as_well(named_by, workspace, monkeypatch):
    monkeypatch.setenv("ALSO", "http://127.0.0.1:9/other-place")
    if named_by == "workspace":
        (workspace.root / "clew.yaml").write_text("notify: {webhook: {url_env: ALSO}}\n")
    follow(LocalTarget(secrets=["ALSO"] if named_by == "target" else []).launch(run := talk(workspace)), Silent())
    assert "also [redacted]\n" in run.log_path(1).read_text()
