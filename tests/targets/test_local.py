import json
import os
import signal

import pytest

from clew.errors import RunFailed
from clew.runs import IllegalMove, State, Workspace
from clew.targets import LocalTarget
from clew.targets.watching import Silent, follow
from support import tiny_run, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path)


def run_to_end(run):
    return follow(LocalTarget().launch(run), Silent())


def test_a_run_completes_with_result_artifact_and_log(workspace):
    run = tiny_run(workspace, name="r")
    assert run_to_end(run) is State.COMPLETED
    assert run.result.metrics["steps"] == 10
    assert run.result.artifacts["walk.txt"].path == "artifacts/walk.txt"
    assert run.result.attempts == 1
    assert run.log_path(1).exists()


def test_a_failed_run_keeps_the_cause(workspace):
    run = tiny_run(workspace, name="r", fail_at=3)
    assert run_to_end(run) is State.FAILED
    assert (run.result.failure.kind, run.result.failure.reason) == ("ValueError", "the job went wrong")
    assert "ValueError: the job went wrong" in "\n".join(run.result.failure.log_tail)
    assert [event["reason"] for event in run.events("failure")] == ["the job went wrong"]


def test_a_stopped_run_is_saved_and_goes_on_to_the_same_end(workspace):
    whole = tiny_run(workspace, name="whole", until=60)
    run_to_end(whole)
    run = tiny_run(workspace, name="r", until=60, pause=0.01)
    worker = LocalTarget().launch(run)
    wait_until(lambda: any(run.events("metric")))
    run.inbox.send("stop")
    assert follow(worker, Silent()) is State.STOPPED
    assert run_to_end(run) is State.COMPLETED
    assert run.result.metrics == whole.result.metrics
    assert [event["step"] for event in run.events("metric")] == list(range(1, 61))


def test_a_killed_worker_is_said_to_be_killed_and_goes_on_to_the_same_end(workspace):
    whole = tiny_run(workspace, name="whole", until=20)
    run_to_end(whole)
    run = tiny_run(workspace, name="r", until=20, kill_at=13)
    assert run_to_end(run) is State.INTERRUPTED
    assert "killed by SIGKILL" in run.result.failure.reason
    assert run_to_end(run) is State.COMPLETED
    assert run.result.metrics == whole.result.metrics
    assert run.result.attempts == 2


def test_sigterm_saves_before_the_worker_ends(workspace):
    run = tiny_run(workspace, name="r", until=2000, pause=0.01, every=1000)
    worker = LocalTarget().launch(run)
    wait_until(lambda: any(run.events("metric")))
    os.kill(run.states.read().owner.pid, signal.SIGTERM)
    assert follow(worker, Silent()) is State.INTERRUPTED
    assert len(list(run.checkpoints.glob("step-*"))) == 1


def test_a_live_worker_is_adopted_and_not_started_twice(workspace):
    run = tiny_run(workspace, name="r", until=40, pause=0.02)
    first = LocalTarget().launch(run)
    second = LocalTarget().launch(run)
    assert follow(second, Silent()) is State.COMPLETED
    assert first.poll() is State.COMPLETED
    assert run.result.attempts == 1


def test_a_completed_run_is_not_run_again(workspace):
    run = tiny_run(workspace, name="r")
    run_to_end(run)
    with pytest.raises(IllegalMove, match="completed cannot become queued"):
        LocalTarget().launch(run)


def test_a_worker_of_a_replaced_attempt_leaves_without_touching_anything(workspace, caplog):
    from clew.worker import work

    run = tiny_run(workspace, name="r")
    run.states.queue()
    run.states.move(State.STARTING, attempt=1)
    run.states.move(State.INTERRUPTED, attempt=1)
    run.states.queue()
    assert work(run, 1) == 5
    assert "attempt 1 was replaced by attempt 2" in caplog.text
    assert list((run.path / "journal").iterdir()) == []


def test_a_worker_that_cannot_even_start_is_reported_with_its_last_words(workspace, monkeypatch):
    run = tiny_run(workspace, name="r")
    monkeypatch.setenv("PYTHONHOME", "/nonexistent")
    with pytest.raises(RunFailed, match="the worker ended before it took the run") as caught:
        LocalTarget().launch(run)
    assert caught.value.hint
    assert run.state is State.FAILED


def test_the_journal_of_a_killed_run_has_no_step_twice(workspace):
    run = tiny_run(workspace, name="r", until=30, kill_at=17, every=4)
    run_to_end(run)
    run_to_end(run)
    assert [event["step"] for event in run.events("metric")] == list(range(1, 31))


def test_the_result_file_is_valid_json_with_the_environment(workspace):
    run = tiny_run(workspace, name="r")
    run_to_end(run)
    value = json.loads((run.path / "result.json").read_text())
    assert value["environment"]["python"]
    assert value["status"] == "completed"
