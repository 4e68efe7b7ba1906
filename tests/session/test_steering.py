"""What a session does with commands; the job is a counter whose value tells which rate was in force when."""

from __future__ import annotations

import os
import signal
import threading
from functools import partial

import pytest

from clew.runs import Command, Owner, RunInfo, State, create_run
from clew.session import CheckpointConfig, RunStopped, Session, Setting
from support import wait_until


class Counter:
    """Counts with a rate that can be set."""

    def __init__(self) -> None:
        self.step, self.value, self.rate, self.writes = 0, 0.0, 1.0, True

    def save(self, directory):
        if not self.writes:
            raise OSError(28, "No space left on device")
        (directory / "state").write_text(f"{self.step} {self.value}")

    def load(self, directory):
        step, value = (directory / "state").read_text().split()
        self.step, self.value = int(step), float(value)

    def settings(self):
        return [Setting("rate", lambda: self.rate, partial(setattr, self, "rate"), low=0, high=9, open=True)]


class Mute(Counter):
    settings = None


class Killed(BaseException):
    """What a process that is gone leaves behind: nothing more happens."""


@pytest.fixture
def run(tmp_path):
    return create_run(tmp_path / "runs", RunInfo(id="r", job="count", config_hash="c0ffee"), "job: count\n", {})


def attempt(run, until=10, *, every=100, killed_at=None, counter=None):
    """Make an attempt and return how it ended, and the counter."""
    number = run.states.queue()
    run.states.move(State.STARTING, attempt=number)
    run.states.move(State.RUNNING, attempt=number, owner=Owner.current())
    counter = counter or Counter()
    end = State.COMPLETED
    try:
        with Session(run, None, number) as session:
            session.attach(counter, CheckpointConfig(every=every))
            while counter.step < until:
                counter.step += 1
                counter.value = counter.value * 1.5 + counter.rate
                session.log(counter.step, value=counter.value)
                if counter.step == killed_at:
                    raise Killed
                session.boundary(counter.step)
    except RunStopped as stopped:
        end = stopped.state
    except Killed:
        end = State.INTERRUPTED
    run.states.move(end, attempt=number)
    return end, counter


def ask(run, verb, /, at=None, before=None, if_config="", **args):
    return run.inbox.post(Command(verb, args, at=at, before=before, if_config=if_config))


def outcomes(run):
    return [(event["verb"], event["at"], event["outcome"]) for event in run.events("command")]


def saved(run):
    return sorted(int(path.name[5:]) for path in run.checkpoints.glob("step-*"))


def values(run):
    return {event["step"]: event["values"]["value"] for event in run.events("metric")}


def beside(body):
    """Do something in another thread; whoever waits for it has a deadline."""
    thread = threading.Thread(target=body)
    thread.start()
    return thread


def test_a_paused_run_answers_goes_some_steps_and_goes_on(run):
    for verb, at, args in [
        ("pause", 3, {}),
        ("note", 3, {"text": "why"}),
        ("pause", 3, {}),
        ("step", 3, {"steps": 2}),
        ("note", 5, {"text": "there"}),
        ("resume", 5, {}),
        ("resume", 6, {}),
    ]:
        ask(run, verb, at=at, **args)
    assert attempt(run, 7)[0] is State.COMPLETED
    assert outcomes(run) == [
        ("pause", 3, "applied"),
        ("note", 3, "applied"),
        ("pause", 3, "applied"),
        ("step", 3, "applied"),
        ("note", 5, "applied"),
        ("resume", 5, "applied"),
        ("resume", 6, "rejected: the run is not paused"),
    ]
    assert [(event["kind"], event["at"]) for event in run.events("paused", "resumed")] == [
        ("paused", 3),
        ("resumed", 3),
        ("paused", 5),
        ("resumed", 5),
    ]
    assert saved(run) == [3]


def test_a_paused_run_says_so_waits_and_is_over_in_the_end(run):
    ask(run, "pause", at=2)

    def look_and_let_go():
        wait_until(lambda: run.state is State.PAUSED)
        ask(run, "resume")

    thread = beside(look_and_let_go)
    assert attempt(run, 4)[0] is State.COMPLETED
    thread.join(timeout=30)
    assert list(values(run)) == [1, 2, 3, 4]


def test_a_signal_ends_a_paused_run_like_any_other_and_it_comes_back_paused(run):
    ask(run, "pause", at=2)
    ask(run, "set", at=2, rate=3)

    def interrupt():
        wait_until(lambda: len(outcomes(run)) == 2)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = beside(interrupt)
    assert attempt(run)[0] is State.INTERRUPTED
    thread.join(timeout=30)
    ask(run, "resume", at=2)
    ask(run, "stop", at=3)
    end, counter = attempt(run)
    assert (end, counter.rate, list(values(run))) == (State.STOPPED, 3.0, [1, 2, 3])
    assert [event["kind"] for event in run.events("paused", "resumed")] == ["paused", "paused", "resumed"]


def test_a_stop_ends_a_pause_for_good(run):
    ask(run, "pause", at=2)
    ask(run, "stop", at=2)
    assert attempt(run)[0] is State.STOPPED
    assert attempt(run, 4)[0] is State.COMPLETED
    assert saved(run) == [2]


def test_an_abort_saves_nothing(run):
    ask(run, "abort", at=3)
    assert attempt(run, every=2)[0] is State.STOPPED
    assert saved(run) == [2]


def test_a_pause_whose_promise_cannot_be_kept_is_no_pause(run):
    full = Counter()
    full.writes = False
    ask(run, "pause", at=2)
    ask(run, "pause", at=3, save=False)
    ask(run, "checkpoint", at=4)
    ask(run, "stop", at=5)
    assert attempt(run, 6, counter=full)[0] is State.COMPLETED
    failed = "rejected: the checkpoint could not be saved: [Errno 28] No space left on device"
    assert [outcome for _, _, outcome in outcomes(run)] == [
        failed,
        "rejected: there is no checkpoint yet (let it save one: pause without --latest)",
        failed,
        failed,
    ]
    assert saved(run) == []
    assert [path.name for path in run.checkpoints.iterdir()] == []


def test_a_pause_that_relies_on_the_latest_checkpoint_saves_none(run):
    ask(run, "pause", at=5, save=False)
    ask(run, "resume", at=5)
    attempt(run, 6, every=4)
    assert (saved(run), outcomes(run)[0][2]) == ([4], "applied")


def test_a_pause_beyond_the_checkpoint_is_come_back_to(run):
    ask(run, "pause", at=5, save=False)

    def kill():
        wait_until(lambda: run.state is State.PAUSED)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = beside(kill)
    # The signal saves; a machine that lost its power would not have.
    attempt(run, every=4)
    thread.join(timeout=30)
    for path in (run.checkpoints / "step-00000005").iterdir():
        path.unlink()
    ask(run, "resume", at=5)
    assert attempt(run, 6, every=4)[0] is State.COMPLETED
    paused = [(event["attempt"], event["at"]) for event in run.events("paused")]
    assert paused == [(1, 5), (2, 5)]


@pytest.mark.parametrize("killed_at", [3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("every", [2, 3, 100])
def test_a_steered_run_that_is_killed_ends_as_the_undisturbed_one(run, tmp_path, killed_at, every):
    calm = create_run(tmp_path / "calm", RunInfo(id="r", job="count"), "job: count\n", {})
    for one in (run, calm):
        ask(one, "set", at=3, rate=2)
        ask(one, "checkpoint", at=4)
        ask(one, "set", at=4, rate=5)
        ask(one, "pause", at=6, save=False)
        ask(one, "set", at=6, rate="0.25")
        ask(one, "step", at=6, steps=1)
        ask(one, "resume", at=7)
    attempt(calm, every=every)
    attempt(run, every=every, killed_at=killed_at)
    assert attempt(run, every=every)[0] is State.COMPLETED
    assert values(run) == values(calm)
    assert sorted(outcomes(run)) == sorted(outcomes(calm))


def test_what_was_set_at_an_earlier_step_by_a_later_attempt_comes_first(run):
    ask(run, "set", at=8, rate=8)
    attempt(run, killed_at=9)
    ask(run, "set", at=4, rate=4)
    ask(run, "checkpoint", at=9)
    attempt(run, killed_at=10)
    _, counter = attempt(run)
    assert counter.rate == 8


@pytest.mark.parametrize(
    ("verb", "args", "reason"),
    [
        ("fly", {}, "not a command"),
        ("pause", {"save": "yes"}, "save must be true or false, not 'yes'"),
        ("pause", {"sav": True}, "pause has no argument 'sav'; did you mean 'save'?"),
        ("resume", {"now": 1}, "resume has no argument 'now'; it takes none"),
        ("step", {}, "steps must be a whole number from 1, not None"),
        ("step", {"steps": 0}, "steps must be a whole number from 1, not 0"),
        ("step", {"steps": True}, "steps must be a whole number from 1, not True"),
        ("note", {}, "a note is a text"),
        ("note", {"text": "x" * 10_001}, "a note has at most 10000 characters, and this one 10001"),
        ("set", {}, "nothing to set; there is rate"),
        ("set", {"rat": 1}, "there is no setting 'rat'; did you mean 'rate'?"),
        ("set", {"rate": "much"}, "rate is a number, not 'much'"),
        ("set", {"rate": True}, "rate is a number, not True"),
        ("set", {"rate": "nan"}, "rate is a number, not 'nan'"),
        ("set", {"rate": [1]}, "rate is a number, not [1]"),
        ("set", {"rate": 0}, "rate must be above 0 and at most 9, not 0"),
        ("set", {"rate": 10}, "rate must be above 0 and at most 9, not 10"),
        ("set", {"rate": 2, "rat": 1}, "there is no setting 'rat'; did you mean 'rate'?"),
    ],
)
def test_nonsense_is_rejected_with_the_reason_and_changes_nothing(run, verb, args, reason):
    ask(run, verb, at=1, **args)
    end, counter = attempt(run, 3)
    assert outcomes(run) == [(verb, 1, f"rejected: {reason}")]
    assert (end, counter.rate, saved(run)) == (State.COMPLETED, 1.0, [])


@pytest.mark.parametrize("tag", ["../x", "a b", "12", "best", "", 7])
def test_a_tag_that_is_none_is_rejected(run, tag):
    ask(run, "checkpoint", tag=tag)
    attempt(run, 2)
    wanted = "applied" if tag == "" else f"rejected: {tag!r} cannot be a tag"
    assert outcomes(run)[0][2].startswith(wanted)


def test_a_tagged_checkpoint_is_kept(run):
    ask(run, "checkpoint", at=1, tag="before-the-storm")
    attempt(run, 9, every=2)
    assert saved(run) == [1, 6, 8]


def test_a_job_with_nothing_to_set_says_so(run):
    ask(run, "set", rate=1)
    attempt(run, 2, counter=Mute())
    assert outcomes(run)[0][2] == "rejected: this job has nothing that can be set while it runs"


def test_a_job_that_keeps_no_state_can_be_paused_and_stopped_but_not_saved(run):
    number = run.states.queue()
    for state in (State.STARTING, State.RUNNING):
        run.states.move(state, attempt=number, owner=Owner.current())
    for verb in ("checkpoint", "pause", "resume", "stop"):
        ask(run, verb)
    with pytest.raises(RunStopped), Session(run, None, number) as session:
        session.boundary(1)
    assert [outcome for _, _, outcome in outcomes(run)] == [
        "rejected: this job keeps no state to save",
        *["applied"] * 3,
    ]


def test_what_is_sent_during_a_save_is_carried_out_at_the_next_boundary(run):
    counter = Counter()
    save = counter.save

    def interrupted(directory):
        ask(run, "note", text="are you there?") if counter.step == 2 else None
        save(directory)

    counter.save = interrupted
    attempt(run, 4, every=2, counter=counter)
    assert outcomes(run) == [("note", 3, "applied")]


def test_a_command_that_is_sent_twice_is_carried_out_once(run):
    twice = ask(run, "note", at=2, text="once")
    ask(run, "checkpoint", at=3)
    attempt(run, killed_at=4)
    run.inbox.post(twice)
    attempt(run)
    assert outcomes(run) == [("note", 2, "applied"), ("checkpoint", 3, "applied")]
    assert list((run.path / "inbox").iterdir()) == []


def test_what_still_waits_when_the_run_completes_is_told_so(run):
    ask(run, "stop", at=50)
    attempt(run, 3)
    assert outcomes(run) == [("stop", 3, "expired: the run completed at step 3")]
    assert list((run.path / "inbox").iterdir()) == []


def test_what_waits_for_a_later_step_survives_a_stop(run):
    ask(run, "stop", at=2)
    ask(run, "set", at=4, rate=2)
    attempt(run)
    assert attempt(run, 5)[1].rate == 2


def test_a_replaced_attempt_carries_nothing_out(run):
    number = run.states.queue()
    for state in (State.STARTING, State.RUNNING):
        run.states.move(state, attempt=number, owner=Owner.current())
    session = Session(run, None, number)
    with pytest.raises(Exception, match="was replaced by attempt 2"), session:
        session.attach(Counter())
        run.states.move(State.INTERRUPTED, attempt=number)
        run.states.queue()
        ask(run, "note", text="for the other one")
        session.boundary(1)
    assert outcomes(run) == []


def test_the_journal_tells_who_asked_for_what_and_when(run):
    command = ask(run, "set", at=2, before=9, if_config="c0f", rate=2)
    attempt(run, 3)
    (event,) = run.events("command")
    assert {name: event[name] for name in ("id", "issuer", "sent", "args", "conditions")} == {
        "id": command.id,
        "issuer": command.issuer,
        "sent": command.sent,
        "args": {"rate": 2},
        "conditions": {"at": 2, "before": 9, "if_config": "c0f"},
    }
