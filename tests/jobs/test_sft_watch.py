"""Looking at a model while it is fine-tuned: it changes nothing, decides about the best, and knows when to stop."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from tuning_support import Echo, attempt, metrics_of, new_run, save_model, weights_of

from clew.checkpoints import CheckpointStore
from clew.engines import GenerationConfig, load_engine
from clew.engines.base import EngineOptions
from clew.errors import RunFailed, UserError
from clew.jobs.base import CheckpointConfig, RuntimeConfig
from clew.jobs.probe import EvaluateConfig, Probe
from clew.jobs.sft import SftConfig, SftTraining, sft
from clew.jobs.tuning import LoraConfig
from clew.models.source import resolve
from clew.tasks import MissingPart, Task
from clew.train import EarlyStoppingConfig

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
]

ASKED = EvaluateConfig(
    every=2,
    limit=6,
    split="test",
    best_by="long",
    generation=GenerationConfig(max_new_tokens=6, temperature=1.0, batch_tokens=64),
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model") / "m")


class Noisy(Echo):
    """Draws at random while it measures."""

    def metrics(self, example, completion):
        return {"long": len(completion) / 8, "noise": random.random() + float(torch.rand(()))}


def settings(model, training=None, **changes):
    fields = {
        "model": model,
        "task": Noisy(),
        "lora": LoraConfig(rank=2, dropout=0.2),
        "training": SftTraining(**{"steps": 5, "batch_size": 4, "lr": 1e-2, "log_every": 2} | (training or {})),
        "checkpoint": CheckpointConfig(every=3),
        "runtime": RuntimeConfig(threads=1),
    }
    return SftConfig(**fields | changes)


@pytest.mark.parametrize("training", [{}, {"activation_checkpointing": True, "validate_every": 2}])
def test_the_tasks_own_evaluation_is_logged_and_changes_nothing(training, model, tmp_path):
    quiet, asked = new_run(tmp_path / "a"), new_run(tmp_path / "b")
    expected = attempt(sft, quiet, settings(model, training))
    outcome = attempt(sft, asked, settings(model, training, evaluate=ASKED))
    assert weights_of(asked) == weights_of(quiet) != {}
    logged = metrics_of(asked)
    assert [step for step, values in logged.items() if "eval/long" in values] == [2, 4, 5]
    evaluated = {name: logged[5][name] for name in ("eval/long", "eval/noise")}
    assert outcome.metrics == expected.metrics | evaluated
    plain = {
        step: {name: value for name, value in values.items() if not name.startswith("eval/")}
        for step, values in logged.items()
    }
    assert plain == metrics_of(quiet)


@pytest.mark.parametrize("stop_at", [2, 3])
def test_a_stopped_and_resumed_run_is_the_uninterrupted_one(stop_at, model, tmp_path):
    config = settings(model, {"validate_every": 2}, evaluate=ASKED, publish="best")
    straight, halting = new_run(tmp_path / "a"), new_run(tmp_path / "b")
    expected = attempt(sft, straight, config)
    assert attempt(sft, halting, config, stop_at=stop_at) is None
    torch.manual_seed(123)
    assert attempt(sft, halting, config).metrics.keys() == expected.metrics.keys()
    without_noise = [
        {step: {n: v for n, v in values.items() if n != "eval/noise"} for step, values in metrics_of(run).items()}
        for run in (halting, straight)
    ]
    assert without_noise[0] == without_noise[1]
    assert weights_of(halting) == weights_of(straight)


def test_an_evaluation_while_training_is_that_of_the_published_model(model, tmp_path):
    run = new_run(tmp_path)
    outcome = attempt(sft, run, settings(model, evaluate=ASKED))
    engine = load_engine("transformers", resolve(str(run.artifacts / "adapter"), tmp_path), EngineOptions())
    said = engine.generate([one.prompt for one in Noisy().problems("test")[:6]], ASKED.generation)
    assert outcome.metrics["eval/long"] == pytest.approx(sum(len(one.text) for one in said) / 8 / 6)


@pytest.mark.parametrize("lower", [False, True])
@pytest.mark.parametrize("lora", [LoraConfig(rank=2), None], ids=["adapter", "model"])
def test_the_chosen_metric_decides_what_is_the_best_and_is_published(lora, lower, model, tmp_path, monkeypatch):
    values = iter([0.3, 0.9, 0.5])
    monkeypatch.setattr(Probe, "measure", lambda self: {"eval/long": next(values)})
    evaluate = EvaluateConfig(
        every=2, split="test", best_by="long", lower_is_better=lower, generation=GenerationConfig(max_new_tokens=2)
    )
    run = new_run(tmp_path)
    config = settings(
        model, evaluate=evaluate, lora=lora, checkpoint=CheckpointConfig(every=100, keep_last=1), publish="best"
    )
    outcome = attempt(sft, run, config)
    best = CheckpointStore(run.checkpoints).best()
    assert best.step == outcome.notes["published_step"] == (2 if lower else 4)
    assert outcome.metrics["eval/long"] == (0.3 if lower else 0.9)
    name = "model/model" if lora is None else "adapter/adapter_model"
    published = load_file(run.artifacts / f"{name}.safetensors")
    saved = load_file(best.path / f"{name.partition('/')[2]}.safetensors")
    assert published.keys() == saved.keys()
    assert all(torch.equal(published[one], saved[one]) for one in published)


@pytest.mark.parametrize("stop_at", [None, 5, 8], ids=["straight", "in the wait", "at the end"])
def test_a_loss_that_does_not_fall_ends_the_training(stop_at, model, tmp_path):
    training = {"steps": 20, "lr": 0.0, "validate_every": 2, "log_every": 3}
    stopping = EarlyStoppingConfig(patience=3)
    evaluate = EvaluateConfig(every=7, split="test", limit=2, generation=GenerationConfig(max_new_tokens=2))
    config = settings(model, training | {"early_stopping": stopping}, evaluate=evaluate)
    run = new_run(tmp_path)
    if stop_at:
        assert attempt(sft, run, config, stop_at=stop_at) is None
    outcome = attempt(sft, run, config)
    assert outcome.notes["steps"] == 8
    stopped = outcome.notes["stopped_early"]
    assert (stopped["of_steps"], stopped["best_step"], stopped["waited"]) == (20, 2, 3)
    logged = metrics_of(run)
    assert {"loss", "eval_loss", "eval/long"} <= logged[8].keys()
    assert max(logged) == 8
    assert [step for step, values in logged.items() if "eval/long" in values] == [7, 8]


class Mute(Task):
    """Examples, and nothing to measure them by."""

    def examples(self, split):
        return Echo().examples(split)


def test_what_cannot_decide_is_refused(model, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"publish and evaluate.best_by: nothing says which state is the best"):
        settings(model, publish="best")
    with pytest.raises(ValueError, match=r"training.early_stopping and evaluate.best_by: nothing says which state"):
        settings(model, {"early_stopping": EarlyStoppingConfig()})
    with pytest.raises(MissingPart, match="the task Mute has no metrics, which evaluate of sft needs"):
        sft.check(settings(model, task=Mute(), evaluate=ASKED), tmp_path)
    with pytest.raises(UserError, match=r"evaluate.best_by is 'lng', which the task Noisy does not measure\n  did you"):
        sft.check(settings(model, evaluate=EvaluateConfig(split="test", best_by="lng")), tmp_path)
    with pytest.raises(UserError, match="do not fit into the model's context of 64 tokens"):
        attempt(sft, new_run(tmp_path / "a"), settings(model, evaluate=replace(ASKED, generation=GenerationConfig())))
    monkeypatch.setattr(Probe, "measure", lambda self: {"eval/long": float("nan")})
    with pytest.raises(RunFailed, match="there is no best checkpoint to publish"):
        attempt(sft, new_run(tmp_path / "b"), settings(model, evaluate=ASKED, publish="best"))
