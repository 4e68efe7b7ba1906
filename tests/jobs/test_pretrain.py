from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from clew.checkpoints import CheckpointStore
from clew.config import config
from clew.data.config import DataConfig
from clew.engines import GenerationConfig
from clew.engines.transformers import TransformersEngine
from clew.errors import DataError, UserError
from clew.jobs.base import CheckpointConfig
from clew.jobs.pretrain import PretrainConfig, pretrain
from clew.jobs.probe import EvaluateConfig, Probe
from clew.models.config import ModelConfig
from clew.models.source import resolve
from clew.models.tokenizers import BpeTokenizer
from clew.runs import Owner, Run, RunInfo, State, create_run
from clew.session import Outcome, RunStopped, Session
from clew.tasks import Example, MissingPart, Task
from clew.train import EarlyStoppingConfig, MuonConfig, TrainingConfig

pytestmark = pytest.mark.slow


@config
class Rhymes(Task):
    """Three words over and over."""

    texts: int = 60

    def documents(self, split: str) -> Iterable[str]:
        return ["one two three"] * {"train": self.texts, "validation": 5, "test": 5}[split]


def small(**changes) -> PretrainConfig:
    fields = {
        "task": Rhymes(),
        "model": ModelConfig(depth=1, width=16, heads=2),
        "data": DataConfig(seq_len=16),
        "training": TrainingConfig(steps=12, batch_size=4, lr=0.01, log_every=5, validate_every=6),
        "checkpoint": CheckpointConfig(every=5),
    }
    return PretrainConfig(**fields | changes)


def new_run(folder: Path) -> Run:
    return create_run(folder / "runs", RunInfo(id="r", job="pretrain"), "", {})


def attempt(run: Run, settings: PretrainConfig, stop_at: int | None = None) -> Outcome | None:
    """Make one attempt; with `stop_at` a stop command is found waiting there."""
    number = run.states.queue()
    for state in (State.STARTING, State.RUNNING):
        run.states.move(state, attempt=number, owner=Owner.current())
    with Session(run, settings, number) as session:
        if stop_at is not None:
            boundary = session.boundary

            def stopping(step: int, *, metric: float | None = None) -> None:
                if step == stop_at:
                    run.inbox.send("stop")
                boundary(step, metric=metric)

            session.boundary = stopping
        try:
            outcome = pretrain.run(session)
        except RunStopped as stop:
            run.states.move(stop.state, attempt=number)
            return None
    run.states.move(State.COMPLETED, attempt=number)
    return outcome


def metrics_of(run: Run) -> dict[int, dict[str, float]]:
    found: dict[int, dict[str, float]] = {}
    for event in run.events("metric"):
        values = {name: value for name, value in event["values"].items() if name != "tokens_per_second"}
        found.setdefault(event["step"], {}).update(values)
    return found


def test_a_pretraining_publishes_a_model_that_has_learned(tmp_path):
    run = new_run(tmp_path)
    outcome = attempt(run, small(training=TrainingConfig(steps=60, batch_size=8, lr=0.01)))
    assert outcome.metrics["val_loss"] < 0.5
    assert outcome.metrics["train_loss"] < 2
    assert outcome.notes["steps"] == 60
    folder = run.artifacts / "model"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    prompt = tokenizer("one two th", return_tensors="pt")
    written = model.generate(prompt["input_ids"], attention_mask=prompt["attention_mask"], max_new_tokens=4)
    assert tokenizer.decode(written[0]) == "one two three<|endoftext|>"


def test_loss_and_validation_are_logged_when_they_are_due(tmp_path):
    run = new_run(tmp_path)
    attempt(run, small())
    logged = metrics_of(run)
    assert {step for step, values in logged.items() if "loss" in values} == {5, 10, 12}
    assert {step for step, values in logged.items() if "val_loss" in values} == {6, 12}
    assert next(iter(run.events("horizon")))["total"] == 12
    assert [event["step"] for event in run.events("checkpoint")] == [2, 5, 7, 10, 12]


@pytest.mark.parametrize("stop_at", [3, 10, 12], ids=["middle", "log step", "last step"])
def test_a_stopped_and_resumed_run_publishes_bitwise_the_same_model(stop_at, tmp_path):
    straight, halting = new_run(tmp_path / "a"), new_run(tmp_path / "b")
    expected = attempt(straight, small())
    assert attempt(halting, small(), stop_at=stop_at) is None
    torch.manual_seed(123)
    assert attempt(halting, small()).metrics == expected.metrics
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        ours, theirs = (run.artifacts / "model" / name for run in (halting, straight))
        assert ours.read_bytes() == theirs.read_bytes(), name
    assert metrics_of(halting) == metrics_of(straight)


def test_a_trained_tokenizer_goes_with_the_model(tmp_path):
    run = new_run(tmp_path)
    attempt(run, small(tokenizer=BpeTokenizer(vocab_size=270)))
    tokenizer = AutoTokenizer.from_pretrained(run.artifacts / "model")
    assert json.loads((run.artifacts / "model" / "config.json").read_text())["vocab_size"] == len(tokenizer)
    assert len(tokenizer("one two three")["input_ids"]) < 10


def test_the_dial_decides_what_is_left_open(tmp_path):
    outcome = attempt(
        new_run(tmp_path), small(model=ModelConfig(depth=1), training=TrainingConfig(tokens=200, batch_size=4))
    )
    assert outcome.notes["peak_lr"] == ModelConfig(depth=1).shape.learning_rate
    assert outcome.notes["steps"] == 3


def test_a_task_without_text_is_refused(tmp_path):
    with pytest.raises(DataError, match="the task Rhymes has no text to train on"):
        attempt(new_run(tmp_path), small(task=Rhymes(texts=0)))


def test_a_task_without_documents_fails_the_check(tmp_path):
    with pytest.raises(MissingPart, match="the task Task has no documents, which pretrain needs"):
        pretrain.check(small(task=Task()), tmp_path)


def test_the_configs_import_no_torch():
    modules = "clew.jobs.pretrain, clew.models.tokenizers, clew.data, clew.train"
    code = f"import sys, {modules}; sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'numpy')))"
    subprocess.run([sys.executable, "-c", code], check=True)


class SpokenRhymes(Rhymes):
    """The same words, with a question about them."""

    def problems(self, split):
        return [Example(id=str(number), prompt="one two th"[:number], completion="x") for number in range(3, 9)]

    def metrics(self, example, completion):
        return {"words": float(completion.count(" ")), "length": float(len(completion))}


ASKING = {
    "task": SpokenRhymes(),
    "training": TrainingConfig(steps=12, batch_size=4, lr=0.01, log_every=5, validate_every=6, optimizer=MuonConfig()),
    "evaluate": EvaluateConfig(every=4, limit=5, generation=GenerationConfig(max_new_tokens=6), best_by="words"),
}


def best_of(run: Run) -> int:
    return CheckpointStore(run.checkpoints).best().step


def test_the_tasks_own_evaluation_is_logged_and_changes_nothing(tmp_path):
    quiet, asking = new_run(tmp_path / "a"), new_run(tmp_path / "b")
    expected = attempt(quiet, small(**{**ASKING, "evaluate": None}))
    outcome = attempt(asking, small(**ASKING))
    for name in ("model.safetensors", "config.json"):
        assert (quiet.artifacts / "model" / name).read_bytes() == (asking.artifacts / "model" / name).read_bytes()
    logged = metrics_of(asking)
    assert {step for step, values in logged.items() if "eval/words" in values} == {4, 8, 12}
    assert outcome.metrics == {**expected.metrics, **{name: logged[12][name] for name in ("eval/words", "eval/length")}}
    assert not list(asking.events("generation"))


def test_an_evaluation_while_training_is_that_of_the_published_model(tmp_path):
    run = new_run(tmp_path)
    outcome = attempt(run, small(**ASKING))
    folder = run.artifacts / "model"
    engine = TransformersEngine(AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder))
    problems = SpokenRhymes().problems("validation")[:5]
    said = engine.generate([one.prompt for one in problems], GenerationConfig(max_new_tokens=6))
    assert outcome.metrics["eval/length"] == sum(len(one.text) for one in said) / 5


@pytest.mark.parametrize("lower", [False, True])
def test_the_chosen_metric_decides_which_checkpoint_is_the_best(lower, tmp_path, monkeypatch):
    values = iter([0.3, 0.9, 0.5])
    monkeypatch.setattr(Probe, "measure", lambda self: {"eval/words": next(values)})
    evaluate = EvaluateConfig(
        every=4, best_by="words", lower_is_better=lower, generation=GenerationConfig(max_new_tokens=2)
    )
    run = new_run(tmp_path)
    attempt(run, small(**{**ASKING, "evaluate": evaluate, "checkpoint": CheckpointConfig(every=100, keep_last=1)}))
    assert best_of(run) == (4 if lower else 8)
    assert resolve("run:r@best", tmp_path / "runs").base.endswith(f"{best_of(run):08d}/model")


@pytest.mark.parametrize("stop_at", [4, 7, 12])
def test_a_stopped_and_resumed_run_with_muon_and_evaluation_is_bitwise_the_same(stop_at, tmp_path):
    straight, halting = new_run(tmp_path / "a"), new_run(tmp_path / "b")
    expected = attempt(straight, small(**ASKING))
    assert attempt(halting, small(**ASKING), stop_at=stop_at) is None
    torch.manual_seed(123)
    assert attempt(halting, small(**ASKING)) == expected
    ours, theirs = (run.artifacts / "model" / "model.safetensors" for run in (halting, straight))
    assert ours.read_bytes() == theirs.read_bytes()
    assert metrics_of(halting) == metrics_of(straight)
    assert best_of(halting) == best_of(straight)


@pytest.mark.parametrize("evaluate", [ASKING["evaluate"], None], ids=["by a metric", "by the loss"])
def test_the_best_weights_can_be_published_instead_of_the_last(evaluate, tmp_path):
    training = TrainingConfig(steps=12, batch_size=4, lr=0.01, log_every=5, validate_every=4)
    run = new_run(tmp_path)
    settings = small(
        task=SpokenRhymes(), training=training, evaluate=evaluate, publish="best", checkpoint=CheckpointConfig(every=99)
    )
    outcome = attempt(run, settings)
    assert outcome.notes["published_step"] == best_of(run)
    best = run.checkpoints / f"step-{best_of(run):08d}" / "model" / "model.safetensors"
    assert (run.artifacts / "model" / "model.safetensors").read_bytes() == best.read_bytes()
    logged = metrics_of(run)
    assert outcome.metrics["val_loss"] == logged[best_of(run)]["val_loss"]
    rated = "eval/words" if evaluate else "val_loss"
    values = [values[rated] for values in logged.values() if rated in values]
    assert outcome.metrics[rated] == (max(values) if evaluate else min(values))


STOPPING = TrainingConfig(
    steps=40,
    batch_size=4,
    lr=1e-9,
    log_every=5,
    validate_every=2,
    early_stopping=EarlyStoppingConfig(patience=3, min_delta=0.1),
)


@pytest.mark.parametrize("stop_at", [None, 5, 8], ids=["straight", "in the wait", "at the end"])
def test_a_loss_that_does_not_fall_ends_the_training(stop_at, tmp_path):
    run, settings = new_run(tmp_path), small(training=STOPPING)
    if stop_at:
        assert attempt(run, settings, stop_at=stop_at) is None
    outcome = attempt(run, settings)
    # The first of the validations at 2, 4, 6 and 8 is the best, and three more are waited for.
    assert outcome.notes["steps"] == 8
    assert {name: outcome.notes["stopped_early"][name] for name in ("of_steps", "best_step", "waited")} == {
        "of_steps": 40,
        "best_step": 2,
        "waited": 3,
    }
    logged = metrics_of(run)
    assert max(logged) == 8
    assert {"loss", "val_loss"} <= logged[8].keys()
    assert 2 in [event["step"] for event in run.events("checkpoint")]


def test_what_cannot_stop_or_decide_is_refused(tmp_path):
    with pytest.raises(MissingPart, match="has no problems, which evaluate of pretrain needs"):
        pretrain.check(small(task=Rhymes(), evaluate=EvaluateConfig()), tmp_path)
    with pytest.raises(UserError) as caught:
        attempt(new_run(tmp_path / "a"), small(**{**ASKING, "evaluate": EvaluateConfig(best_by="word")}))
    assert str(caught.value) == (
        "evaluate.best_by is 'word', which the task SpokenRhymes does not measure\n  did you mean 'words'?"
    )
    with pytest.raises(UserError, match="do not fit into the model's context of 16 tokens"):
        attempt(new_run(tmp_path / "b"), small(**{**ASKING, "evaluate": EvaluateConfig()}))
    with pytest.raises(DataError, match=r"no text to validate on, which training.early_stopping needs"):
        attempt(new_run(tmp_path / "c"), small(task=Unheard(), training=STOPPING))
    with pytest.raises(DataError, match=r"no text to validate on, which publish needs"):
        attempt(new_run(tmp_path / "d"), small(task=Unheard(), publish="best"))
    with pytest.raises(ValueError, match=r"publish and training.validate_every: nothing decides which checkpoint"):
        small(training=TrainingConfig(steps=2, validate_every=None), publish="best")


@config
class Unheard(Rhymes):
    """Nothing is held out."""

    def documents(self, split: str) -> Iterable[str]:
        return super().documents(split) if split == "train" else []
