from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from clew.config import config
from clew.data.config import DataConfig
from clew.errors import DataError
from clew.jobs.base import CheckpointConfig
from clew.jobs.pretrain import PretrainConfig, pretrain
from clew.models.config import ModelConfig
from clew.models.tokenizers import BpeTokenizer
from clew.runs import Owner, Run, RunInfo, State, create_run
from clew.session import Outcome, RunStopped, Session
from clew.tasks import MissingPart, Task
from clew.train import TrainingConfig


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
    assert [event["step"] for event in run.events("checkpoint")] == [5, 10]


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
    assert outcome.notes["steps"] == 4


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
