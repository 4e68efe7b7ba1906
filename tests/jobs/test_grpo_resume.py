"""A stopped and resumed GRPO run is the uninterrupted one: prompts, samples, rewards, reference model, weights."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from tuning_support import Echo, attempt, metrics_of, new_run, save_model, weights_of

from clew.engines import GenerationConfig
from clew.jobs.base import CheckpointConfig, RuntimeConfig
from clew.jobs.grpo import GrpoConfig, GrpoTraining, SamplingConfig, grpo
from clew.jobs.probe import EvaluateConfig
from clew.jobs.sft import SftConfig, SftTraining, sft
from clew.jobs.tuning import LoraConfig
from clew.train import EarlyStoppingConfig

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A model, and an adapter that was trained on it."""
    folder = tmp_path_factory.mktemp("model")
    base, run = save_model(folder / "m"), new_run(folder)
    training = SftTraining(steps=3, batch_size=4, lr=1e-2)
    attempt(sft, run, SftConfig(model=base, task=Echo(), training=training, lora=LoraConfig(rank=2)))
    return {"base": base, "adapter": str(run.artifacts / "adapter")}


def settings(model, **changes):
    fields = {
        "model": model,
        "task": Echo(),
        "lora": LoraConfig(rank=2, dropout=0.1),
        "sampling": SamplingConfig(max_new_tokens=8),
        # Two forward passes for a step, and an epoch that ends between the stop and the end.
        "training": GrpoTraining(
            lr=1e-2,
            steps=6,
            prompts_per_step=4,
            generations=2,
            micro_batch_size=4,
            beta=0.1,
            warmup_steps=2,
            log_every=2,
        ),
        "checkpoint": CheckpointConfig(every=2),
        "runtime": RuntimeConfig(threads=1),
    }
    return GrpoConfig(**fields | changes)


def rollouts_of(run):
    """What was asked and answered, in order, and what it was worth."""
    return [
        (event["step"], event["id"], event["completion"], event["rewards"], event["reward"])
        for event in run.events("rollout")
    ]


def interrupted(run, config, stop_at):
    """Stop, disturb every generator, and go on."""
    assert attempt(grpo, run, config, stop_at=stop_at) is None
    random.seed(9)
    np.random.seed(9)
    torch.manual_seed(9)
    return attempt(grpo, run, config)


@pytest.mark.parametrize(
    ("model", "changes"),
    [("base", {}), ("base", {"lora": None}), ("adapter", {})],
    ids=["a new adapter", "all weights", "an adapter goes on"],
)
def test_a_resumed_run_with_a_reference_model_is_the_uninterrupted_one(model, changes, models, tmp_path):
    config = settings(models[model], **changes)
    straight, halting = new_run(tmp_path / "a", "grpo"), new_run(tmp_path / "b", "grpo")
    expected = attempt(grpo, straight, config)
    assert interrupted(halting, config, stop_at=3) == expected
    assert rollouts_of(halting) == rollouts_of(straight)
    assert metrics_of(halting) == metrics_of(straight)
    assert weights_of(halting) == weights_of(straight) != {}
    logged = metrics_of(straight)
    assert list(logged) == [2, 4, 6], "a stop at 3 is in the middle of what is logged at 4"
    assert logged[6]["kl"] > 1e-6, "the reference is the model at the start, not the one that is trained"


@pytest.mark.parametrize("micro_batch_size", [1, 2, 8])
def test_a_boundary_never_has_a_half_used_buffer_of_rollouts(micro_batch_size, models, tmp_path):
    """Every step generates anew, all of its completions at once, in however many parts it learns from them."""
    training = GrpoTraining(lr=1e-2, steps=2, prompts_per_step=4, generations=2, micro_batch_size=micro_batch_size)
    run = new_run(tmp_path, "grpo")
    attempt(grpo, run, settings(models["base"], training=training))
    steps = [event["step"] for event in run.events("rollout")]
    assert steps == [1] * 8 + [2] * 8
    first, second = ([event["id"] for event in run.events("rollout") if event["step"] == step] for step in (1, 2))
    assert len(set(first)) == len(set(second)) == 4
    assert not set(first) & set(second)


def test_evaluation_best_and_patience_survive_a_stop(models, tmp_path):
    config = settings(
        models["base"],
        evaluate=EvaluateConfig(
            every=2, limit=4, split="test", best_by="long", generation=GenerationConfig(max_new_tokens=4)
        ),
        training=GrpoTraining(
            lr=0.0, steps=12, prompts_per_step=2, generations=2, early_stopping=EarlyStoppingConfig(patience=2)
        ),
        checkpoint=CheckpointConfig(every=5),
        publish="best",
    )
    straight, halting = new_run(tmp_path / "a", "grpo"), new_run(tmp_path / "b", "grpo")
    expected = attempt(grpo, straight, config)
    # Measured at 2, 4 and 6: the first is the best, and two more are waited for.
    assert expected.notes["stopped_early"] == {"of_steps": 12, "best": -expected.metrics["eval/long"]} | {
        "best_step": 2,
        "waited": 2,
    }
    assert expected.notes["published_step"] == 2
    assert max(metrics_of(straight)) == 6
    for stop_at in (5, 6):
        run = halting if stop_at == 5 else new_run(tmp_path / "c", "grpo")
        assert interrupted(run, config, stop_at=stop_at) == expected
        assert rollouts_of(run) == rollouts_of(straight)
        assert metrics_of(run) == metrics_of(straight)
        assert weights_of(run) == weights_of(straight)
