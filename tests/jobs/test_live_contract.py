"""One contract for everything that trains: the same commands, the same journal, and the same numbers after a kill."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from tuning_support import Echo, attempt, metrics_of, new_run, save_model, weights_of

from clew.config import config
from clew.data.config import DataConfig
from clew.jobs.base import CheckpointConfig, RuntimeConfig
from clew.jobs.grpo import GrpoConfig, GrpoTraining, SamplingConfig, grpo
from clew.jobs.pretrain import PretrainConfig, pretrain
from clew.jobs.sft import SftConfig, SftTraining, sft
from clew.jobs.tuning import LoraConfig
from clew.models.config import ModelConfig
from clew.runs import Command, Run, State
from clew.session import Session
from clew.tasks import Task
from clew.train import TrainingConfig
from clew.train.schedules import Constant
from tiny_jobs import CountConfig, count

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
]

STEPS = 10
POLICY = CheckpointConfig(every=5)
RUNTIME = RuntimeConfig(threads=1)

SCRIPT: list[tuple[str, dict[str, Any], int]] = [
    ("note", {"text": "it begins"}, 1),
    ("set", {"lr": 0.004}, 2),
    ("checkpoint", {"tag": "early"}, 3),
    ("set", {"lr": "much"}, 3),
    ("set", {"lr": 0.1, "speed": 2}, 3),
    ("pause", {}, 4),
    ("set", {"lr": "2e-3"}, 4),
    ("step", {"steps": 2}, 4),
    ("note", {"text": "two steps later"}, 6),
    ("resume", {}, 6),
    ("resume", {}, 6),
    ("fly", {}, 6),
    ("set", {"steps": 6}, 6),
    ("set", {"steps": 8}, 6),
    ("stop", {}, 9),
]
JOURNAL = [
    ("note", 1, "applied"),
    ("set", 2, "applied"),
    ("checkpoint", 3, "applied"),
    ("set", 3, "rejected: lr is a number"),
    ("set", 3, "rejected: there is no setting 'speed'"),
    ("pause", 4, "applied"),
    ("set", 4, "applied"),
    ("step", 4, "applied"),
    ("note", 6, "applied"),
    ("resume", 6, "applied"),
    ("resume", 6, "rejected: the run is not paused"),
    ("fly", 6, "rejected: not a command"),
    ("set", 6, "rejected: steps must be at least 7"),
    ("set", 6, "applied"),
    ("stop", 8, "expired: the run completed at step 8"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_model(tmp_path_factory.mktemp("model") / "m")


@config
class Rhymes(Task):
    """Three words over and over."""

    def documents(self, split: str) -> Iterable[str]:
        return ["one two three"] * 60


def counting(model: str, folder: Path) -> tuple[Any, Any]:
    return count, CountConfig(until=STEPS, every=5)


def pretraining(model: str, folder: Path) -> tuple[Any, Any]:
    training = TrainingConfig(
        steps=STEPS, batch_size=4, lr=0.01, schedule=Constant(), log_every=1, validate_every=None, max_grad_norm=None
    )
    return pretrain, PretrainConfig(
        task=Rhymes(),
        model=ModelConfig(depth=1, width=16, heads=2),
        data=DataConfig(seq_len=16),
        training=training,
        checkpoint=POLICY,
        runtime=RUNTIME,
    )


def tuning(model: str, folder: Path) -> tuple[Any, Any]:
    training = SftTraining(steps=STEPS, batch_size=4, lr=0.01, schedule="constant")
    lora = LoraConfig(rank=2, dropout=0.1)
    return sft, SftConfig(model=model, task=Echo(), training=training, lora=lora, checkpoint=POLICY, runtime=RUNTIME)


def improving(model: str, folder: Path) -> tuple[Any, Any]:
    training = GrpoTraining(steps=STEPS, prompts_per_step=2, generations=2, lr=0.01, schedule="constant")
    sampling = SamplingConfig(max_new_tokens=4)
    return grpo, GrpoConfig(
        model=model, task=Echo(), training=training, sampling=sampling, checkpoint=POLICY, runtime=RUNTIME
    )


TRAINERS = {"count": counting, "pretrain": pretraining, "sft": tuning, "grpo": improving}


def steered(folder: Path, script: list[tuple[str, dict[str, Any], int]]) -> Run:
    run = new_run(folder)
    for verb, args, at in script:
        run.inbox.post(Command(verb, args, at=at))
    return run


class Killed(BaseException):
    """Nothing more happens in this process."""


def killed(job: Any, run: Run, settings: Any, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make an attempt that is gone in the middle of a step."""
    due: Callable[..., bool] = Session.due

    def dying(session: Session[Any], done: int) -> bool:
        if done == step:
            raise Killed
        return due(session, done)

    with monkeypatch.context() as patch:
        patch.setattr(Session, "due", dying)
        with pytest.raises(Killed):
            attempt(job, run, settings)
    assert run.state is State.FAILED


def told(run: Run) -> list[tuple[str, int, str]]:
    """What came of each command; without what a trainer adds to its reason, such as all that it can set."""
    events = sorted(run.events("command"), key=lambda event: event["at"])
    return [(event["verb"], event["at"], re.split(r"; |, not | and at most", event["outcome"])[0]) for event in events]


@pytest.mark.parametrize("trainer", TRAINERS)
def test_the_same_commands_give_the_same_journal_and_a_kill_changes_nothing(trainer, model, tmp_path, monkeypatch):
    job, settings = TRAINERS[trainer](model, tmp_path)
    calm = steered(tmp_path / "calm", SCRIPT)
    outcome = attempt(job, calm, settings)
    assert told(calm) == JOURNAL
    assert [(event["kind"], event["at"]) for event in calm.events("paused", "resumed")] == [
        ("paused", 4),
        ("resumed", 4),
        ("paused", 6),
        ("resumed", 6),
    ]
    assert sorted(int(path.name[5:]) for path in calm.checkpoints.glob("step-*")) == [3, 4, 5]
    assert list(calm.events("horizon"))[-1]["total"] == 8

    disturbed = steered(tmp_path / "disturbed", SCRIPT)
    for step in (5, 7):
        killed(job, disturbed, settings, step, monkeypatch)
    again = attempt(job, disturbed, settings)
    assert told(disturbed) == JOURNAL
    assert outcome is not None and again is not None
    assert again.metrics == outcome.metrics
    assert max(metrics_of(calm)) == 8
    assert metrics_of(disturbed) == metrics_of(calm)
    assert weights_of(disturbed) == weights_of(calm)


@pytest.mark.parametrize(("trainer", "name"), [("pretrain", "lr"), ("sft", "learning_rate"), ("grpo", "learning_rate")])
def test_what_is_set_is_what_the_optimizer_uses_also_after_a_resume(trainer, name, model, tmp_path, monkeypatch):
    job, settings = TRAINERS[trainer](model, tmp_path)
    ends = {}
    for changed in ({"lr": 0.004}, {"weight_decay": 0.9}, {"max_grad_norm": 1e-8}):
        script = [("set", {"steps": 5}, 1), ("set", changed, 2), ("checkpoint", {}, 3)]
        calm, disturbed = steered(tmp_path / f"calm-{changed}", script), steered(tmp_path / f"killed-{changed}", script)
        attempt(job, calm, settings)
        killed(job, disturbed, settings, 4, monkeypatch)
        attempt(job, disturbed, settings)
        assert [outcome for *_, outcome in told(disturbed)] == ["applied"] * 3
        assert weights_of(disturbed) == weights_of(calm)
        ends[next(iter(changed))] = weights_of(calm)
        rates = {step: values[name] for step, values in metrics_of(disturbed).items()}
        later = changed.get("lr", 0.01)
        assert rates == pytest.approx({1: 0.01, 2: 0.01, 3: later, 4: later, 5: later})
    assert len({repr(weights) for weights in ends.values()}) == 3


def test_a_temperature_and_weights_of_rewards_hold_from_the_next_step_on(model, tmp_path):
    job, settings = improving(model, tmp_path)
    run = steered(
        tmp_path,
        [
            ("set", {"temperature": 0.01, "reward_weights.long": 0, "reward_weights.even": 2}, 3),
            ("set", {"temperature": 0}, 4),
            ("set", {"reward_weights.lang": 0}, 4),
        ],
    )
    attempt(job, run, settings)
    assert [outcome for *_, outcome in told(run)] == [
        "applied",
        "rejected: temperature must be above 0",
        "rejected: there is no setting 'reward_weights.lang'",
    ]
    for event in run.events("rollout"):
        long, even = (0.0, 2.0) if event["step"] > 3 else (1.0, 0.5)
        parts = {"long": long * event["rewards"]["long"], "even": even * (event["rewards"]["even"] or 0.0)}
        assert event["reward"] == pytest.approx(sum(parts.values()))
    # Almost greedy: the completions of a prompt are alike, but for a tie. Who trains and who generates agree about it.
    assert all(values["logprob_gap/max"] < 1e-3 for values in metrics_of(run).values())
    answers: dict[tuple[int, str], set[str]] = {}
    for event in run.events("rollout"):
        answers.setdefault((event["step"], event["id"]), set()).add(event["completion"])
    before, after = (
        [len(found) == 1 for (step, _), found in answers.items() if (step > 3) is late] for late in (False, True)
    )
    assert not any(before)
    assert sum(after) >= len(after) - 1
