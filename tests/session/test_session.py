import os
import signal
import threading
from dataclasses import dataclass

import pytest

from clew.errors import UserError
from clew.runs import Fenced, Owner, RunInfo, State, create_run
from clew.session import CheckpointConfig, RunStopped, Session


@dataclass
class Counter:
    """The smallest thing that trains: its state is one number."""

    value: int = 0

    def save(self, directory):
        (directory / "value").write_text(str(self.value))

    def load(self, directory):
        self.value = int((directory / "value").read_text())


@pytest.fixture
def run(tmp_path):
    return create_run(tmp_path / "runs", RunInfo(id="r", job="count"), "job: count\n", {})


def start(run):
    attempt = run.states.queue()
    run.states.move(State.STARTING, attempt=attempt)
    run.states.move(State.RUNNING, attempt=attempt, owner=Owner.current())
    return Session(run, None, attempt)


def end(run, state):
    run.states.move(state, attempt=run.states.read().attempt)


def count(session, until, every=5, **policy):
    """Count to a number under a session; returns the value."""
    with session:
        counter = Counter()
        first = session.attach(counter, CheckpointConfig(every=every, **policy))
        assert counter.value == first
        for step in range(first + 1, until + 1):
            counter.value = step
            session.log(step, loss=1 / step)
            session.boundary(step)
    return counter.value


def saved(run):
    return sorted(int(path.name[5:]) for path in run.checkpoints.glob("step-*"))


def test_saves_are_made_when_due_and_old_ones_go(run):
    assert count(start(run), 22) == 22
    assert saved(run) == [15, 20]


def test_a_later_attempt_goes_on_and_supersedes_what_it_redoes(run):
    count(start(run), 13)
    end(run, State.INTERRUPTED)
    count(start(run), 16)
    steps = [(event["attempt"], event["step"]) for event in run.events("metric")]
    assert steps == [(1, step) for step in range(1, 11)] + [(2, step) for step in range(11, 17)]


def test_a_bad_checkpoint_is_said_loudly_and_the_one_before_is_used(run, caplog):
    count(start(run), 10)
    (run.checkpoints / "step-00000010" / "value").write_text("99")
    end(run, State.INTERRUPTED)
    session = start(run)
    with session:
        assert session.attach(Counter()) == 5
    assert "checkpoint step 10 cannot be used: value does not match its hash" in caplog.text
    assert [event["at"] for event in run.events("checkpoint_bad")] == [10]


def test_stop_saves_first_and_is_journalled(run):
    session = start(run)
    command = run.inbox.send("stop")
    with pytest.raises(RunStopped, match="stopped at step 0: stop was asked for"):
        count(session, 10)
    assert saved(run) == [0]
    event = next(run.events("command"))
    assert (event["id"], event["verb"], event["at"], event["outcome"]) == (command.id, "stop", 0, "applied")
    assert list((run.path / "inbox").iterdir()) == []


def test_checkpoint_saves_now_and_the_run_goes_on(run):
    session = start(run)
    run.inbox.send("checkpoint")
    assert count(session, 3) == 3
    assert saved(run) == [0]


def test_a_stop_that_came_before_the_resume_does_not_stop_it_again(run):
    run.inbox.send("stop")
    assert count(start(run), 3) == 3
    assert next(run.events("command"))["outcome"] == "expired: the run was resumed after it"


def test_a_command_is_applied_once_even_if_its_file_comes_back(run):
    session = start(run)
    command = run.inbox.send("checkpoint")
    text = (run.path / "inbox" / f"{command.id}.json").read_text()
    count(session, 2)
    end(run, State.INTERRUPTED)
    (run.path / "inbox" / f"{command.id}.json").write_text(text)
    count(start(run), 4)
    assert [event["id"] for event in run.events("command")] == [command.id]
    assert list((run.path / "inbox").iterdir()) == []


def test_nonsense_in_the_inbox_is_rejected_and_harms_nothing(run):
    (run.path / "inbox" / "x.json").write_text("{")
    assert count(start(run), 3) == 3
    assert next(run.events("command"))["outcome"] == "rejected: not a command"


def test_a_signal_saves_and_interrupts(run):
    with pytest.raises(RunStopped) as caught, start(run) as session:
        counter = Counter(7)
        session.attach(counter)
        os.kill(os.getpid(), signal.SIGTERM)
        session.boundary(7)
    assert caught.value.state is State.INTERRUPTED
    assert saved(run) == [7]


def test_the_signal_handlers_are_given_back(run):
    before = signal.getsignal(signal.SIGTERM)
    with start(run):
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_no_except_clause_of_a_job_can_swallow_a_stop():
    assert not issubclass(RunStopped, Exception)


def test_a_replaced_session_may_not_commit(run):
    session = start(run)
    with session:
        counter = Counter()
        session.attach(counter)
        end(run, State.INTERRUPTED)
        run.states.queue()
        with pytest.raises(Fenced):
            session.checkpoint(1)
        with pytest.raises(Fenced), session.artifact("model") as path:
            path.write_text("late")
    assert saved(run) == []
    assert list(run.artifacts.glob("model")) == []


def test_a_job_reads_back_at_once_what_it_and_earlier_attempts_have_said(run):
    count(start(run), 7)
    end(run, State.INTERRUPTED)
    with start(run) as session:
        session.attach(Counter())
        session.log(6, loss=0.5)
        assert [(event["step"], event["attempt"]) for event in session.events("metric")] == [
            *((step, 1) for step in range(1, 6)),
            (6, 2),
        ]


def test_an_artifact_appears_whole_or_not_at_all(run):
    with start(run) as session:
        with pytest.raises(ZeroDivisionError), session.artifact("model") as folder:
            folder.mkdir()
            (folder / "weights").write_text("half")
            raise ZeroDivisionError
        assert not (run.artifacts / "model").exists()
        with session.artifact("model") as folder:
            folder.mkdir()
            (folder / "weights").write_text("whole")
        assert (run.artifacts / "model" / "weights").read_text() == "whole"
        assert session.artifacts["model"].bytes == 5
        with session.artifact("model") as path:
            path.write_text("a file in its place")
    assert (run.artifacts / "model").read_text() == "a file in its place"


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/tmp/x", "a/b", "", ".", "..", ".x", "link"])
def test_an_artifact_cannot_lie_elsewhere(name, run, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (run.artifacts / "link").symlink_to(tmp_path / "elsewhere")
    refused = pytest.raises(UserError, match=r"leads out of its folder|cannot be the name")
    with start(run) as session, refused, session.artifact(name):
        raise AssertionError("the body must not run")
    assert [path.name for path in run.artifacts.iterdir()] == ["link"]


def test_an_artifact_is_journalled_with_what_it_holds(run):
    with start(run) as session, session.artifact("table") as path:
        path.write_text("12345")
    (event,) = run.events("artifact")
    kept = session.artifacts["table"]
    assert (event["path"], event["sha256"], event["bytes"]) == (kept.path, kept.sha256, kept.bytes) != ("", "", 0)


def test_the_best_checkpoint_survives_rotation(run):
    with start(run) as session:
        session.attach(Counter(), CheckpointConfig(every=1, keep_last=1))
        for step, loss in ((1, 3.0), (2, 1.0), (3, 2.0), (4, 2.5)):
            session.boundary(step, metric=loss)
    assert saved(run) == [2, 4]


def test_sessions_work_outside_of_the_main_thread(run):
    outcome = []
    thread = threading.Thread(target=lambda: outcome.append(count(start(run), 3)))
    thread.start()
    thread.join(timeout=30)
    assert outcome == [3]
