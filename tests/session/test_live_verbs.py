"""What a session does with the commands that look at a trainer or put it back, and what it does in trouble."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import walks
from walks import Walk, WalkConfig, attempt

from clew.errors import NotFinite, RunFailed
from clew.jobs import create_job_run, load_job
from clew.runs import Command, Owner, Run, State, Workspace
from clew.session import CheckpointConfig, LiveConfig, RunStopped, Session
from support import wait_until


@pytest.fixture
def run(tmp_path) -> Run:
    place = Workspace(tmp_path)
    place.runs.mkdir()
    return create_job_run(place, load_job({"job": f"{Path(walks.__file__)}:walk", "name": "a"}))


def ask(run: Run, verb: str, /, at: int | None = None, **args: object) -> Command:
    return run.inbox.post(Command(verb, args, at=at))


def outcomes(run: Run) -> list[tuple[str, int, str]]:
    return [(event["verb"], event["at"], event["outcome"]) for event in run.events("command")]


def values(run: Run, name: str = "position") -> dict[int, float]:
    return {event["step"]: event["values"][name] for event in run.events("metric") if name in event["values"]}


def opened(run: Run, live: LiveConfig, surface: object | None = None, every: int = 3) -> tuple[Session, Walk]:
    number = run.states.queue()
    for state in (State.STARTING, State.RUNNING):
        run.states.move(state, attempt=number, owner=Owner.current())
    session = Session(run, WalkConfig(), number)
    walk = Walk(WalkConfig())
    session.attach(surface or walk, CheckpointConfig(every=every), live)
    return session, walk


def test_an_evaluation_stands_in_the_journal_and_in_the_commands_result(run):
    ask(run, "evaluate", at=4)
    attempt(run)
    assert list(values(run, "far")) == [4]
    (event,) = run.events("command")
    assert event["result"] == {"metrics": {"far": values(run, "far")[4]}}


@pytest.mark.parametrize("killed_at", [5, 6, 8])
def test_an_evaluation_is_made_again_where_its_step_is_done_again(run, killed_at):
    ask(run, "evaluate", at=5)  # the state of this step is saved before
    ask(run, "evaluate", at=7)
    attempt(run, killed_at=killed_at)
    attempt(run)
    assert list(values(run, "far")) == [5, 7]
    assert len([event for event in run.events("metric") if "far" in event["values"]]) == 2
    assert outcomes(run) == [("evaluate", 5, "applied"), ("evaluate", 7, "applied")]


def test_a_reset_takes_the_weights_of_a_checkpoint_and_goes_on_with_the_data(run, tmp_path):
    ask(run, "reset", at=8, to=5)
    attempt(run)
    again = values(run)
    assert again[9] != again[6]
    assert sorted(values(run)) == list(range(1, 13))
    assert values(run, "first")[9] == attempt_alone(tmp_path)[9]


def attempt_alone(folder: Path) -> dict[int, float]:
    place = Workspace(folder / "alone")
    place.runs.mkdir(parents=True)
    calm = create_job_run(place, load_job({"job": f"{Path(walks.__file__)}:walk", "name": "a"}))
    attempt(calm)
    return values(calm, "first")


@pytest.mark.parametrize("killed_at", [8, 9, 11, 12])
def test_a_run_that_was_reset_and_killed_ends_as_the_undisturbed_one(run, tmp_path, killed_at):
    place = Workspace(tmp_path / "calm")
    place.runs.mkdir(parents=True)
    calm = create_job_run(place, load_job({"job": f"{Path(walks.__file__)}:walk", "name": "a"}))
    for one in (run, calm):
        ask(one, "checkpoint", at=2, tag="early")
        ask(one, "reset", at=8, to="early")
        ask(one, "select", at=8, recipe="hardest 30%")
        ask(one, "reset", at=9, optimizer=True)
        ask(one, "merge", at=11, sources=[".", "2"], method="average")
    attempt(calm)
    attempt(run, killed_at=killed_at)
    attempt(run)
    assert values(run) == values(calm)
    assert outcomes(run) == outcomes(calm)


def test_a_reset_to_something_that_is_none_is_rejected_with_the_reason(run):
    ask(run, "reset", at=6, to="other@5")
    ask(run, "reset", at=6)
    ask(run, "reset", at=6, to=["5"])
    ask(run, "reset", at=6, to=4)
    ask(run, "reset", at=6, optimizer="yes")
    attempt(run)
    assert [outcome for *_, outcome in outcomes(run)] == [
        "rejected: there is no run 'other' (known: a)",
        "rejected: nothing to reset; name a checkpoint (--to), the optimizer (--optimizer), or both",
        "rejected: a checkpoint is a step or a tag, best or last, not ['5']",
        "rejected: a: there is no checkpoint '4' (there is 5)",
        "rejected: optimizer must be true or false, not 'yes'",
    ]


class Mute:
    """Saves and loads, and can do nothing else."""

    def save(self, directory):
        (directory / "state").write_text("")

    def load(self, directory):
        pass


@pytest.mark.parametrize(
    ("verb", "args", "reason"),
    [
        ("evaluate", {}, "this job has nothing to evaluate while it runs"),
        ("reset", {"optimizer": True}, "this job cannot be put back"),
        ("select", {"recipe": "all"}, "this job's data cannot be chosen while it runs"),
        ("inspect", {}, "this job cannot look at single samples"),
        ("merge", {"sources": [".", "1"]}, "nothing can be merged into this job"),
        ("health", {}, "this job does not say how it is doing"),
    ],
)
def test_what_a_trainer_cannot_do_is_rejected_with_that_reason(run, verb, args, reason):
    ask(run, verb, at=1, **args)
    session, _ = opened(run, LiveConfig(), Mute())
    with session:
        session.boundary(1)
    assert outcomes(run) == [(verb, 1, f"rejected: {reason}")]


def test_hashes_of_the_state_are_noted_at_their_interval_and_at_the_end(run):
    session, walk = opened(run, LiveConfig(digest_every=4))
    with session:
        session.horizon(10)
        for step in range(1, 11):
            walk.step()
            session.boundary(step)
    assert [event["step"] for event in run.events("digest")] == [4, 8, 10]
    assert len({event["weights"] for event in run.events("digest")}) == 3


def test_no_hash_is_noted_where_none_is_wanted(run):
    session, _ = opened(run, LiveConfig(digest_every=None))
    with session:
        for step in range(1, 201):
            session.boundary(step)
    assert list(run.events("digest")) == []


class Doctor(Walk):
    """Says how it is doing."""

    def health(self):
        return {"verdict": "well", "findings": [], "position": self.position}


def test_health_is_noted_at_its_interval_and_when_asked(run):
    session, _ = opened(run, LiveConfig(health_every=2), Doctor(WalkConfig()))
    ask(run, "health", at=3)
    with session:
        for step in range(1, 5):
            session.boundary(step)
    assert [event["step"] for event in run.events("health")] == [2, 3, 4]
    (event,) = run.events("command")
    assert event["result"]["verdict"] == "well"


class Trouble(Walk):
    """Its position becomes no number at a step, once."""

    def __init__(self, config: WalkConfig, at: tuple[int, ...]) -> None:
        super().__init__(config)
        self.bad = list(at)

    def step(self) -> None:
        super().step()
        if self.done in self.bad:
            self.bad.remove(self.done)
            self.position = math.nan

    def snapshot(self) -> Callable[[Path], None]:
        if math.isnan(self.position):
            raise NotFinite("not finite")
        return super().snapshot()


def troubled(run: Run, on_nan: str, at: tuple[int, ...], until: int = 12, every: int = 3) -> Walk:
    walk = Trouble(WalkConfig(), at)
    session, _ = opened(run, LiveConfig(on_nan=on_nan), walk, every)
    with session:
        while walk.done < until:
            walk.step()
            session.log(walk.done, position=walk.position)
            if math.isnan(walk.position):
                session.rescue(walk.done, RunFailed("the loss is not finite"))
            session.boundary(walk.done)
    return walk


def test_a_loss_that_is_not_finite_fails_the_run(run):
    with pytest.raises(RunFailed, match="the loss is not finite"):
        troubled(run, "stop", (5,))


@pytest.mark.parametrize("at", [5, 6])
def test_a_rollback_takes_the_newest_checkpoints_weights_and_goes_on(run, at):
    walk = troubled(run, "rollback", (at,))
    assert math.isfinite(walk.position)
    assert outcomes(run) == [("reset", at, "applied")]
    (event,) = run.events("command")
    assert (event["issuer"], event["result"]["source"]) == ("on_nan", "@4")
    assert sorted(values(run)) == list(range(1, 13))


def test_a_state_that_is_found_out_when_it_is_saved_is_rolled_back_too(run):
    walk = Trouble(WalkConfig(), (6,))
    session, _ = opened(run, LiveConfig(on_nan="rollback", digest_every=None), walk)
    with session:
        while walk.done < 8:
            walk.step()
            session.boundary(walk.done)  # nothing is logged: step 6 is found out by its checkpoint
    assert math.isfinite(walk.position)
    assert outcomes(run) == [("reset", 6, "applied")]


def test_a_pause_waits_for_somebody(run):
    def help_it() -> None:
        wait_until(lambda: run.state is State.PAUSED)
        ask(run, "stop")  # there is nothing worth saving
        ask(run, "reset", to="last")
        ask(run, "resume")

    thread = threading.Thread(target=help_it)
    thread.start()
    walk = troubled(run, "pause", (5,))
    thread.join(30)
    assert math.isfinite(walk.position)
    assert outcomes(run) == [
        ("pause", 5, "applied"),
        ("stop", 5, "rejected: the checkpoint could not be saved: not finite"),
        ("reset", 5, "applied"),
        ("resume", 5, "applied"),
    ]


def test_without_a_checkpoint_there_is_nothing_to_go_back_to(run):
    with pytest.raises(RunFailed, match="the loss is not finite"):
        troubled(run, "rollback", (1,))
    assert outcomes(run) == []


def test_a_run_that_goes_back_again_and_again_fails_in_the_end(run):
    with pytest.raises(RunFailed, match="the loss is not finite"):
        troubled(run, "rollback", (11, 12, 13, 14), until=300, every=10)
    assert [verb for verb, *_ in outcomes(run)] == ["reset"] * 3


def test_a_run_in_trouble_can_be_aborted(run):
    ask(run, "abort", at=5)
    with pytest.raises(RunStopped):
        troubled(run, "pause", (5,))
