"""One contract for everything that trains: the same commands, the same journal, and the same numbers after a kill."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from contract_adapters import ADAPTERS, LR, Adapter, Place
from tuning_support import CLOCKS, attempt, metrics_of, new_run, save_model

from clew.checkpoints import CheckpointStore
from clew.runs import Command, Run, RunInfo, State
from clew.runs.run import stage_run
from clew.session import Session
from clew.session.verbs import VERBS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
    # Of Lightning 2.6 with PyTorch 2.13, and of small trainings.
    pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.. is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:The 'val_dataloader' does not have many workers"),
]

Script = list[tuple[str, dict[str, Any], int]]
CHILD = "child"
NOT_PAUSED = "rejected: the run is not paused"

# What is asked, after which step, and what becomes of it where it can be done.
ASKED: list[tuple[str, dict[str, Any], int, str]] = [
    ("note", {"text": "it begins"}, 1, "applied"),
    ("set", {"lr": 0.004}, 2, "applied"),
    ("checkpoint", {"tag": "early"}, 3, "applied"),
    ("set", {"lr": "much"}, 3, "rejected: lr is a number"),
    ("set", {"lr": 0.1, "speed": 2}, 3, "rejected: there is no setting 'speed'"),
    ("pause", {}, 4, "applied"),
    ("set", {"lr": "2e-3"}, 4, "applied"),
    ("step", {"steps": 2}, 4, "applied"),
    ("fork", {"staging": "elsewhere"}, 5, "rejected: a fork needs a child that was prepared for it"),
    ("note", {"text": "two steps later"}, 6, "applied"),
    ("resume", {}, 6, "applied"),
    ("resume", {}, 6, NOT_PAUSED),
    ("fly", {}, 6, "rejected: not a command"),
    ("set", {"steps": 6}, 6, "rejected: steps must be at least 7"),
    ("set", {"steps": 11}, 6, "applied"),
    ("evaluate", {}, 7, "applied"),
    ("health", {}, 7, "applied"),
    ("inspect", {"clusters": 0, "limit": 6}, 7, "applied"),
    ("select", {"recipe": "hardest 50%"}, 7, "applied"),
    ("select", {"recipe": "the nicest ones"}, 7, "rejected: "),
    ("reset", {"to": "early"}, 8, "applied"),
    ("reset", {}, 8, "rejected: nothing to reset"),
    ("fork", {"staging": CHILD}, 8, "applied"),
    ("merge", {"sources": [".", "early"]}, 9, "applied"),
    ("merge", {"sources": [".", "77"]}, 9, "rejected: "),
    ("pause", {"save": False}, 9, "applied"),
    ("note", {"text": "without a checkpoint of its own"}, 9, "applied"),
    ("resume", {}, 9, "applied"),
    ("reset", {"optimizer": True}, 10, "applied"),
    ("stop", {}, 12, "expired: the run completed at step 11"),
]
SCRIPT: Script = [(verb, args, at) for verb, args, at, _ in ASKED]
LAST = 11


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model") / "m")


@pytest.fixture(params=ADAPTERS)
def adapter(request):
    return ADAPTERS[request.param]


def steered(folder: Path, script: Script) -> Run:
    run = new_run(folder)
    for verb, args, at in script:
        if args.get("staging") == CHILD:
            args = {"staging": stage_run(run.path.parent, RunInfo(id=CHILD, job="script"), "{}", {}).path.name}
        run.inbox.post(Command(verb, args, at=at))
    return run


class Killed(BaseException):
    """Nothing more happens in this process."""


def killed(job: Any, run: Run, settings: Any, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make an attempt that is gone in the middle of a step."""
    due = Session.due

    def dying(session: Session[Any], done: int) -> bool:
        if done == step:
            session._steering.finish()  # a kill while a child is being born is no matter of who trains
            raise Killed
        return due(session, done)

    with monkeypatch.context() as patch:
        patch.setattr(Session, "due", dying)
        with pytest.raises(Killed):
            attempt(job, run, settings)
    assert run.state is State.FAILED


def told(run: Run) -> list[tuple[str, int, str]]:
    events = sorted(run.events("command"), key=lambda event: event["at"])
    return [(event["verb"], event["at"], event["outcome"]) for event in events]


def expected(adapter: Adapter) -> list[tuple[str, int, str]]:
    """The journal of the script: what an adapter cannot do, it says in its own words."""
    found = []
    for verb, _, at, outcome in ASKED:
        if verb in adapter.cannot and outcome == "applied":
            outcome = f"rejected: {adapter.cannot[verb]}"
        found.append((verb, min(at, LAST), outcome))
    return found


def steady(metrics: dict[str, float]) -> dict[str, float]:
    """Metrics without those that depend on the clock."""
    return {name: value for name, value in metrics.items() if not any(one in name for one in CLOCKS)}


def digests(run: Run) -> dict[int, tuple[str, str]]:
    """Hashes of weights and optimizer after each step."""
    return {event["step"]: (event["weights"], event["optimizer"]) for event in run.events("digest")}


def test_the_same_commands_give_the_same_journal_and_a_kill_changes_nothing(adapter, model, tmp_path, monkeypatch):
    job, settings = adapter.make(Place(model, tmp_path))
    calm = steered(tmp_path / "calm", SCRIPT)
    outcome = attempt(job, calm, settings)
    journal = told(calm)
    for (verb, at, said), wanted in zip(journal, expected(adapter), strict=True):
        assert (verb, at) == wanted[:2]
        assert said.startswith(wanted[2]) and (said == "applied") == (wanted[2] == "applied"), (verb, at, said)
    assert [(event["kind"], event["at"]) for event in calm.events("paused", "resumed")] == [
        (kind, at) for at in (4, 6, 9) for kind in ("paused", "resumed")
    ]
    assert CheckpointStore(calm.checkpoints).tags() == {"early": 3}
    assert list(calm.events("horizon"))[-1]["total"] == LAST
    child = Run(calm.path.parent / CHILD)
    assert (child.state, child.info.fork_step) == (State.CREATED, 8)
    assert (child.checkpoints / "step-00000008").is_dir()

    disturbed = steered(tmp_path / "disturbed", SCRIPT)
    for step in (6, 10):
        killed(job, disturbed, settings, step, monkeypatch)
    again = attempt(job, disturbed, settings)
    assert told(disturbed) == journal
    assert outcome is not None and again is not None
    assert steady(again.metrics) == steady(outcome.metrics)
    assert max(metrics_of(calm)) == LAST
    assert metrics_of(disturbed) == metrics_of(calm)
    assert digests(disturbed) == digests(calm)
    assert len(digests(calm)) == (0 if adapter.cannot else LAST)


def test_the_script_has_everything_that_can_be_asked():
    assert {verb for verb, *_ in SCRIPT} - {"fly"} == VERBS.keys() - {"abort"}


def test_a_training_that_was_stopped_and_aborted_and_its_fork_are_one_that_was_left_alone(adapter, model, tmp_path):
    job, settings = adapter.make(Place(model, tmp_path))
    end = ("set", {"steps": 8}, 1)
    calm = steered(tmp_path / "calm", [end])
    outcome = attempt(job, calm, settings)
    run = steered(tmp_path / "run", [end, ("fork", {"staging": CHILD}, 3), ("stop", {}, 4), ("abort", {}, 6)])
    assert attempt(job, run, settings) is None
    assert run.state is State.STOPPED and (run.checkpoints / "step-00000004").is_dir()
    assert attempt(job, run, settings) is None
    assert run.state is State.STOPPED and not (run.checkpoints / "step-00000006").exists()
    child = Run(run.path.parent / CHILD)
    ended = attempt(job, run, settings)
    assert outcome is not None and ended is not None
    assert steady(ended.metrics) == steady(outcome.metrics)
    attempt(job, child, settings)
    for one, since in ((run, 0), (child, 3)):
        assert metrics_of(one) == {step: values for step, values in metrics_of(calm).items() if step > since}
        assert digests(one) == {step: found for step, found in digests(calm).items() if step > since}
    assert [said for *_, said in told(run)] == ["applied"] * 4


def test_what_is_set_is_what_the_optimizer_uses_also_after_a_resume(adapter, model, tmp_path, monkeypatch):
    if not adapter.rate:
        pytest.skip("it has no optimizer")
    job, settings = adapter.make(Place(model, tmp_path))
    changes = [{"lr": 0.004}, {"weight_decay": 0.9}, {adapter.clip: 1e-8}, {adapter.batch: 2}]
    ends = []
    for place, changed in enumerate(changes[: 1 if adapter.is_large else None]):
        script: Script = [("set", {"steps": 5}, 1), ("set", changed, 2), ("checkpoint", {}, 3)]
        calm, disturbed = steered(tmp_path / f"calm-{place}", script), steered(tmp_path / f"killed-{place}", script)
        attempt(job, calm, settings)
        killed(job, disturbed, settings, 4, monkeypatch)
        attempt(job, disturbed, settings)
        assert [said for *_, said in told(disturbed)] == ["applied"] * 3
        assert digests(disturbed) == digests(calm)
        ends.append(digests(calm))
        rates = {step: values[adapter.rate] for step, values in metrics_of(disturbed).items()}
        later = changed.get("lr", LR)
        assert rates == pytest.approx({1: LR, 2: LR, 3: later, 4: later, 5: later})
    assert len({end[1] for end in ends}) == 1
    assert len({end[3][0] for end in ends}) == len(ends)
