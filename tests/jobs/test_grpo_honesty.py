"""Do the engine that generates and the trainer mean the same policy? And is every reward on record?"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from transformers import LlamaForCausalLM
from tuning_support import Echo, attempt, metrics_of, new_run, save_model, weights_of

from clew.errors import RunFailed, UserError
from clew.jobs.base import RuntimeConfig
from clew.jobs.grpo import GrpoConfig, GrpoTraining, SamplingConfig, grpo
from clew.jobs.tuning import LoraConfig
from clew.tasks import GroupReward, Reward

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model") / "m")


@pytest.fixture(scope="module")
def policy():
    """Imported here, because it takes seconds."""
    from clew.jobs import policy

    return policy


def still(model, task=None, **changes):
    """A run that changes no weight."""
    training = {"lr": 0.0, "steps": 2, "prompts_per_step": 4, "generations": 4, "micro_batch_size": 8}
    return GrpoConfig(
        model=model,
        task=task or Echo(),
        lora=LoraConfig(rank=2),
        sampling=SamplingConfig(max_new_tokens=32, temperature=2.0),
        training=GrpoTraining(**training | changes),
        runtime=RuntimeConfig(threads=1),
    )


def test_the_same_backend_gives_the_same_probabilities_whatever_is_padded(model, tmp_path):
    run = new_run(tmp_path)
    attempt(grpo, run, still(model, max_logprob_gap=1e-4))
    prompts = {len(event["prompt"]) for event in run.events("rollout")}
    for values in metrics_of(run).values():
        assert values["completions/min_length"] < values["completions/max_length"]
        assert 0 < values["logprob_gap/mean"] < 1e-5
        assert values["logprob_gap/mean"] <= values["logprob_gap/max"] < 1e-4
        assert values["ratio/mean"] == pytest.approx(1, abs=1e-6)
        assert values["ratio/min"] == pytest.approx(1, abs=1e-4)
        assert values["ratio/max"] == pytest.approx(1, abs=1e-4)
        assert values["clip_ratio/region_mean"] == 0
    assert len(prompts) > 2


def test_looking_changes_nothing(model, policy, tmp_path, monkeypatch):
    seen, unseen = new_run(tmp_path / "a"), new_run(tmp_path / "b")
    attempt(grpo, seen, still(model, lr=1e-2))
    monkeypatch.setattr(policy.ChosenLogProbs, "rows", lambda self, lengths: None)
    attempt(grpo, unseen, still(model, lr=1e-2))
    assert weights_of(seen) == weights_of(unseen)
    assert "logprob_gap/mean" in metrics_of(seen)[2]
    assert "logprob_gap/mean" not in metrics_of(unseen)[2]


def test_a_generator_with_other_weights_is_caught_before_anything_is_learned_from_it(model, tmp_path, monkeypatch):
    generate = LlamaForCausalLM.generate

    def perturbed(self, *args, **options):
        with torch.no_grad():
            self.lm_head.weight.mul_(1.01)
            try:
                return generate(self, *args, **options)
            finally:
                self.lm_head.weight.div_(1.01)

    monkeypatch.setattr(LlamaForCausalLM, "generate", perturbed)
    with pytest.raises(RunFailed) as caught:
        attempt(grpo, new_run(tmp_path), still(model, max_logprob_gap=1e-3))
    text = str(caught.value)
    assert text.startswith("step 1: the engine that generates and the trainer disagree: their log-probabilities of ")
    assert "more than training.max_logprob_gap=0.001" in text
    assert "likely causes: dropout (lora.dropout), a low precision or quantised weights" in text


def test_an_engine_that_gives_no_probabilities_cannot_keep_a_bound(model, policy, tmp_path, monkeypatch):
    monkeypatch.setattr(policy.ChosenLogProbs, "rows", lambda self, lengths: None)
    with pytest.raises(RunFailed, match=r"gives no log-probabilities, which training.max_logprob_gap needs"):
        attempt(grpo, new_run(tmp_path), still(model, max_logprob_gap=1e-3))


def test_the_figures_are_those_of_all_tokens_that_can_be_compared(policy):
    trained = torch.tensor([[-1.0, -2.0, -9.0], [-1.0, -1.0, -1.0]])
    generated = torch.tensor([[-1.0, -1.5, 0.0], [float("nan"), -1.1, -1.0]])
    mask = torch.tensor([[1, 1, 0], [1, 1, 0]])
    first = policy.compare(trained, generated, mask)
    second = policy.compare(trained, trained, mask)
    found = policy.summary([first, second])
    assert found == pytest.approx(
        {
            "logprob_gap/mean": 0.6 / 7,
            "logprob_gap/max": 0.5,
            "ratio/mean": (math.exp(-0.5) + math.exp(0.1) + 5) / 7,
            "ratio/min": math.exp(-0.5),
            "ratio/max": math.exp(0.1),
        },
        rel=1e-6,
    )
    assert policy.compare(trained, generated, torch.zeros(2, 3)) == []
    assert policy.summary([]) == {}


def test_a_gap_that_is_no_number_is_above_every_bound(policy):
    broken = policy.compare(torch.tensor([[math.nan]]), torch.zeros(1, 1), torch.ones(1, 1))
    assert math.isnan(policy.summary([[1, 0.1, 0.1, 1, 1, 1], broken])["logprob_gap/max"])
    with pytest.raises(RunFailed, match="step 3: the engine that generates and the trainer disagree"):
        policy.check_gap(broken[2], 10.0, 3)
    policy.check_gap(0.5, 0.5, 3)


def test_dropout_is_caught(tmp_path):
    dropping = save_model(tmp_path / "m", attention_dropout=0.3)
    run = new_run(tmp_path)
    with pytest.raises(RunFailed, match="the engine that generates and the trainer disagree"):
        attempt(grpo, run, still(dropping, max_logprob_gap=1e-3))


@pytest.mark.parametrize("loss", ["dapo", "grpo", "dr_grpo"])
def test_a_step_is_the_same_however_it_is_cut(loss, model, tmp_path):
    """Of the losses, only bnpo depends on micro_batch_size, by its definition."""
    cut = []
    for size in (16, 4, 1):
        run = new_run(tmp_path / str(size))
        settings = replace(still(model, lr=1e-3, steps=1, micro_batch_size=size, loss=loss, beta=0.1), lora=None)
        attempt(grpo, run, settings)
        cut.append([metrics_of(run)[1][name] for name in ("loss", "grad_norm")])
    assert cut[1] == pytest.approx(cut[0], rel=1e-4, abs=1e-6)
    assert cut[2] == pytest.approx(cut[0], rel=1e-4, abs=1e-6)


class Varied(Echo):
    """One reward for the group besides, weights that move, and a look at every step."""

    def group_rewards(self):
        return [GroupReward("variety", lambda example, texts: [1 / texts.count(text) for text in texts], weight=2.0)]

    def reward_weights(self, step, total):
        return {"long": step / total}

    def on_rollouts(self, step, rollouts):
        return {"different": float(len({one.completion for one in rollouts}))}


def test_every_reward_is_in_every_rollout_and_in_every_steps_metrics(model, tmp_path):
    run = new_run(tmp_path)
    attempt(grpo, run, still(model, Varied()))
    rollouts = list(run.events("rollout"))
    assert [one["step"] for one in rollouts] == [1] * 16 + [2] * 16
    logged = metrics_of(run)
    assert {one["rewards"]["even"] is None for one in rollouts} == {True, False}
    for step in (1, 2):
        made = [one for one in rollouts if one["step"] == step]
        assert all(set(one["rewards"]) == {"long", "even", "variety"} for one in made)
        assert all((one["rewards"]["even"] is None) == (len(one["prompt"]) % 2 == 0) for one in made)
        for name in ("long", "even", "variety"):
            values = [one["rewards"][name] for one in made if one["rewards"][name] is not None]
            assert logged[step][f"rewards/{name}/mean"] == pytest.approx(sum(values) / len(values))
        for one in made:
            parts = {name: value or 0.0 for name, value in one["rewards"].items()}
            assert one["reward"] == parts["long"] * step / 2 + parts["even"] * 0.5 + parts["variety"] * 2
        assert logged[step]["reward"] == pytest.approx(sum(one["reward"] for one in made) / 16)
        assert logged[step]["task/different"] == len({one["completion"] for one in made})
        groups = [made[start : start + 4] for start in range(0, 16, 4)]
        assert all(len({one["id"] for one in group}) == 1 for group in groups)
        for group in groups:
            texts = [one["completion"] for one in group]
            assert [one["rewards"]["variety"] for one in group] == [1 / texts.count(text) for text in texts]


class Silent(Echo):
    """No reward applies to anything."""

    def rewards(self):
        return [Reward("never", lambda example, completion: None)]


def test_a_reward_that_applies_to_nothing_is_none_and_no_metric(model, tmp_path):
    run = new_run(tmp_path)
    attempt(grpo, run, still(model, Silent(), steps=1))
    assert {(one["rewards"]["never"], one["reward"]) for one in run.events("rollout")} == {(None, None)}
    assert not {"rewards/never/mean", "reward"} & metrics_of(run)[1].keys()


class Misnamed(Echo):
    def reward_weights(self, step, total):
        return {"lng": 1.0}


class Uneven(Echo):
    def group_rewards(self):
        return [GroupReward("few", lambda example, texts: [1.0])]


class Twice(Echo):
    def rewards(self):
        return [*super().rewards(), *super().rewards()]


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (Misnamed(), r"reward_weights\(\) of the task Misnamed names 'lng', which is no reward\n  known: long, even"),
        (Uneven(), "train-.*: the group reward 'few' gave 1 values for 4 completions"),
        (Twice(), "the task Twice has two rewards with the name 'even'"),
    ],
)
def test_a_hook_that_is_wrong_is_named(task, message, model, tmp_path):
    with pytest.raises(UserError, match=message):
        attempt(grpo, new_run(tmp_path), still(model, task, steps=1))
