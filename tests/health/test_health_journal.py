"""What the journal alone says, and the verb that shows it."""

from __future__ import annotations

import json

import pytest

from clew.cli.main import main
from clew.health.journal import completed, journal_report
from clew.runs import JournalWriter, RunInfo, State, create_run


class Told:
    """Events of a journal, whose clock goes a second a step."""

    def __init__(self) -> None:
        self.events = []
        self.now = 1000.0

    def say(self, kind, *, attempt=1, **fields):
        self.events.append({"t": self.now, "kind": kind, "attempt": attempt, "rank": 0, **fields})

    def steps(self, first, last, *, loss=2.0, seconds=1.0, attempt=1, every=1, **more):
        for step in range(first, last + 1, every):
            self.now += seconds * every
            self.say("metric", attempt=attempt, step=step, values={"loss": loss, **more})

    @property
    def report(self):
        return journal_report(self.events)


@pytest.fixture
def told():
    return Told()


def test_a_calm_run_is_well_and_its_pace_is_known(told):
    told.say("restore", step=0)
    told.steps(10, 1000, every=10, tokens_per_second=640.0)
    told.say("checkpoint", step=1000)
    report = told.report
    assert (report["verdict"], report["findings"], report["step"]) == ("well", [], 1000)
    assert (report["throughput"]["median_seconds"], report["throughput"]["tokens_per_second"]) == (1.0, 640.0)
    assert report["losses"]["count"] == 100
    assert (report["history"]["attempts"], report["history"]["checkpoints"]) == (1, 1)
    assert report["numerics"] is None


def test_spikes_and_losses_that_are_not_finite_have_their_step(told):
    told.steps(1, 40)
    told.steps(41, 41, loss=30.0)
    told.steps(42, 60)
    told.steps(61, 62, loss="nan", grad_norm="inf")
    report = told.report
    assert report["verdict"] == "bad"
    assert [finding["text"] for finding in report["findings"]] == [
        "2 of 62 losses are not finite, the first at step 61; lower lr, or clip gradients",
        "grad_norm is not finite at step 61; go back to a checkpoint from before it, with a lower lr",
        "the loss jumped from 2 to 30 at step 41, and came back; look at that batch",
    ]


def test_a_pause_is_no_gap_and_a_gap_is_no_pause(told):
    told.steps(1, 20)
    told.say("paused", at=20)
    told.now += 500
    told.say("resumed", at=20)
    told.steps(21, 40)
    told.now += 90
    told.steps(41, 60)
    report = told.report
    assert report["throughput"]["gaps"] == [{"step": 40, "seconds": 91.0}]
    assert report["throughput"]["pause_share"] == pytest.approx(500 / 648, abs=1e-3)
    assert report["history"]["pauses"] == 1


def test_a_long_validation_and_a_restart_are_no_gaps(told):
    told.steps(1, 20)
    told.now += 300
    told.say("metric", step=20, values={"val_loss": 1.0})
    told.steps(21, 40)
    told.now += 10_000
    told.steps(31, 50, attempt=2)
    report = told.report
    assert (report["throughput"]["num_gaps"], report["history"]["attempts"]) == (0, 2)
    assert report["throughput"]["median_seconds"] == 1.0


def test_only_the_failure_of_the_last_attempt_counts(told):
    told.say("failure", error="OSError", reason="the disk is full")
    assert told.report["findings"][0]["text"] == "the last attempt failed: OSError: the disk is full"
    told.steps(1, 3, attempt=2)
    assert told.report["verdict"] == "well"


def test_commands_are_counted_by_what_became_of_them(told):
    told.say("command", outcome="applied")
    told.say("command", outcome="rejected: no")
    assert (told.report["history"]["commands"], told.report["history"]["refused"]) == (2, 1)


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        (["val_loss", "loss"], "loss"),
        (["eval_loss", "train/loss"], "train/loss"),
        (["reward", "policy_loss"], "policy_loss"),
        (["accuracy", "val_loss"], None),
    ],
)
def test_the_loss_of_the_training_is_found_by_its_name(told, names, taken):
    for step in (1, 2):
        told.say("metric", step=step, values={name: float(place) for place, name in enumerate(names)})
    found = told.report["losses"]
    assert (found and found["newest"]) == (None if taken is None else names.index(taken))


def test_a_damaged_journal_is_read_as_far_as_it_goes(told):
    told.steps(1, 3)
    told.events += [
        {"kind": "metric", "step": "x", "values": {"loss": 1}, "t": None},
        {"kind": "metric", "step": 4, "values": None, "t": "soon"},
        {"kind": "metric", "step": 5, "values": {"loss": None, "on": True, "what": "ever"}, "t": told.now},
        {},
    ]
    assert told.report["losses"]["count"] == 3


def test_an_empty_journal_says_nothing_and_is_well():
    report = journal_report([])
    assert (report["verdict"], report["losses"], report["throughput"], report["step"]) == ("well", None, None, None)


def test_what_the_trainer_said_counts_but_for_losses_that_are_old(told):
    told.steps(1, 40)
    own = {"verdict": "well", "findings": [], "step": 20, "losses": {"count": 5}, "throughput": {"data_share": 0.5}}
    report = completed(own | {"activations": None}, told.report)
    assert (report["step"], report["losses"]["count"], report["verdict"]) == (20, 40, "look")
    assert report["history"]["attempts"] == 1
    fresh = completed(own | {"step": 40, "losses": told.report["losses"] | {"count": 5}}, told.report)
    assert fresh["losses"]["count"] == 5


def test_what_a_job_of_somebodys_own_finds_is_kept(told):
    told.steps(1, 9)
    mine = {"word": "bad", "area": "robots", "text": "one fell over"}
    report = completed({"verdict": "look", "findings": [mine], "robots": {"up": 3}}, told.report)
    assert (report["verdict"], report["findings"], report["robots"]) == ("bad", [mine], {"up": 3})
    assert completed({"verdict": "look"}, told.report)["verdict"] == "look"
    assert completed({"verdict": "splendid"}, told.report)["verdict"] == "well"


# The verb.


@pytest.fixture
def run(tmp_path):
    return create_run(tmp_path / "runs", RunInfo(id="a", job="pretrain"), "job: pretrain\n", {})


@pytest.fixture
def clew(tmp_path, capsys):
    def call(*words):
        capsys.readouterr()
        code = main([*words, "--workspace", str(tmp_path)])
        return code, *capsys.readouterr()

    return call


def write(run, events):
    """Write a journal, and let the run be over."""
    now = [0.0]
    writer = JournalWriter(run.path / "journal", 1, clock=lambda: now[0])
    for event in events:
        now[0] = event["t"]
        writer.write(event["kind"], **{k: v for k, v in event.items() if k not in ("t", "kind", "attempt", "rank")})
    writer.close()
    number = run.states.queue()
    for state in (State.STARTING, State.RUNNING, State.COMPLETED):
        run.states.move(state, attempt=number)


def test_a_run_without_a_report_is_judged_by_its_journal(run, clew, told):
    told.steps(1, 40)
    write(run, told.events)
    assert clew("health", "a") == (
        0,
        "a: well, at step 40\n"
        "\n"
        "loss     2 (40 losses, 0 spikes)\n"
        "step     1 s\n"
        "waiting  for data –, in pauses 0 %\n"
        "run      1 attempt, 0 pauses, 0 checkpoints, 0 commands\n",
        "",
    )


def test_the_newest_report_in_the_journal_is_shown(run, clew, told):
    told.steps(1, 10)
    for step, dead in ((5, 9), (10, 3)):
        layers = {"layers": {"mlp": {"units": 10, "dead": dead, "flat": 0.2}}}
        told.say("health", step=step, report={"verdict": "?", "findings": [], "step": None, "activations": layers})
    write(run, told.events)
    code, out, _ = clew("health", "a")
    assert (code, out.splitlines()[0]) == (0, "a: well, at step 10")
    assert "dead units  3 of 10" in out


@pytest.mark.parametrize(("words", "code"), [((), 0), (("--check",), 1), (("--check", "--json"), 1)])
def test_a_bad_run_is_an_error_only_for_whoever_checks(run, clew, told, words, code):
    told.steps(1, 10, loss="nan")
    write(run, told.events)
    found, out, _ = clew("health", "a", *words)
    assert found == code
    word = json.loads(out)["verdict"] if "--json" in words else out.split("\n")[0]
    assert word in ("bad", "a: bad, at step 10")


def test_a_run_that_is_over_has_nothing_fresh_to_say(run, clew, told):
    write(run, told.events)
    code, _, err = clew("health", "a", "--fresh")
    what, hint = "there is nobody to ask: it is over: completed", "without --fresh its journal is read"
    assert (code, err) == (2, f"clew: a: {what}\n  {hint}\n")


def test_a_run_that_does_not_exist_is_said(clew):
    assert clew("health", "b")[0] == 2
