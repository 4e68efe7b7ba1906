"""What a fine-tuning and a policy optimisation can be asked while they run, besides what every trainer can."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, LlamaForCausalLM
from tuning_support import Echo, attempt, metrics_of, new_run, save_model, weights_of

from clew.config import config
from clew.errors import RunFailed, UserError
from clew.jobs.base import CheckpointConfig, RuntimeConfig
from clew.jobs.grpo import GrpoConfig, GrpoTraining, SamplingConfig, grpo
from clew.jobs.sft import SftConfig, SftTraining, sft
from clew.jobs.tuning import LoraConfig
from clew.runs import Command
from clew.session import Session
from clew.session.surface import LiveConfig

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
]

STEPS = 6
TINY = {"steps": STEPS, "prompts_per_step": 2, "generations": 2, "lr": 0.01}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model") / "m")


def tuning(model, training=None, **changes):
    fields = {
        "model": model,
        "task": Echo(),
        "lora": LoraConfig(rank=2),
        "training": SftTraining(**{"steps": STEPS, "batch_size": 4, "lr": 0.01} | (training or {})),
        "checkpoint": CheckpointConfig(every=2, keep_last=9),
        "runtime": RuntimeConfig(threads=1),
    }
    return SftConfig(**fields | changes)


def improving(model, training=None, **changes):
    fields = {
        "model": model,
        "task": Echo(),
        "sampling": SamplingConfig(max_new_tokens=4),
        "training": GrpoTraining(
            **{"steps": STEPS, "prompts_per_step": 2, "generations": 2, "lr": 0.01} | (training or {})
        ),
        "checkpoint": CheckpointConfig(every=2, keep_last=9),
        "runtime": RuntimeConfig(threads=1),
    }
    return GrpoConfig(**fields | changes)


JOBS = {
    "sft": (sft, tuning),
    "sft, all weights": (sft, lambda model: tuning(model, lora=None)),
    "grpo": (grpo, improving),
}


def told(run):
    return [event["outcome"] for event in run.events("command")]


def asked(run, verb, args, at):
    run.inbox.post(Command(verb, args, at=at))


def at_boundary(monkeypatch, step, look):
    """Look at the surface when the session stands after a step."""
    boundary, due = Session.boundary, Session.due

    def standing(self, done, **options):
        boundary(self, done, **options)
        if done == step:
            look(self._saver.surface)

    monkeypatch.setattr(Session, "due", lambda self, done: due(self, done) or done == step)
    monkeypatch.setattr(Session, "boundary", standing)


def known_to(surface):
    """Of how many parameters the optimizer knows something."""
    return len(surface._trainer.optimizer.state)


# Evaluation


@pytest.mark.parametrize("validates", [True, False])
def test_an_evaluation_on_request_is_logged_once_and_changes_nothing(validates, model, tmp_path):
    # Dropout draws from the generators, of which a data loader of the validation takes one number.
    lora = LoraConfig(rank=2, dropout=0.3)
    settings = tuning(model, {"validate_every": 4, "log_every": 2} if validates else {}, lora=lora)
    quiet, run = new_run(tmp_path / "a"), new_run(tmp_path / "b")
    asked(run, "evaluate", {}, 3)
    for one in (quiet, run):
        attempt(sft, one, settings)
    assert weights_of(run) == weights_of(quiet)
    if not validates:
        assert told(run) == ["rejected: this run has neither validation data nor problems to ask (configure evaluate)"]
        return
    (event,) = run.events("command")
    assert event["outcome"] == "applied"
    here = [one["values"] for one in run.events("metric") if one["step"] == 3]
    assert [sorted(name for name in values if "time" not in name and "second" not in name) for values in here] == [
        ["eval_entropy", "eval_loss", "eval_mean_token_accuracy"]
    ]
    others = {step: values for step, values in metrics_of(run).items() if step != 3}
    assert others == metrics_of(quiet)


# Resets


def checkpointed(run, step):
    (path,) = run.checkpoints.glob(f"step-*{step}")
    return path


@pytest.mark.parametrize("job", JOBS)
def test_a_reset_takes_the_weights_of_a_checkpoint_and_what_its_optimizer_knew(job, model, tmp_path, monkeypatch):
    job, settings = JOBS[job]
    run, seen = new_run(tmp_path), {}

    def look(surface):
        optimizer = surface._trainer.optimizer
        seen["digests"] = surface.digests()
        seen["steps"] = {float(one["step"]) for one in optimizer.state.values()}
        seen["lr"] = optimizer.param_groups[0]["lr"]
        seen["position"] = surface.feed.feed.samples_seen

    at_boundary(monkeypatch, 5, look)
    asked(run, "set", {"lr": 0.004}, 3)
    asked(run, "reset", {"to": 2}, 5)
    attempt(job, run, replace(settings(model), live=LiveConfig(digest_every=1)))
    assert told(run) == ["applied", "applied"]
    noted = {event["step"]: event["weights"] for event in run.events("digest")}
    assert seen["digests"]["weights"] == noted[2] != noted[5]
    assert seen["steps"] == {2.0}
    # The rest goes on: the schedule falls to nothing over six steps, and the data is where it was.
    assert seen["lr"] == pytest.approx(0.004 * 1 / 6)
    assert seen["position"] == 5 * (2 if job is grpo else 4)


def test_an_optimizer_that_is_reset_knows_nothing_and_the_weights_stay(model, tmp_path, monkeypatch):
    run, seen = new_run(tmp_path), {}
    at_boundary(
        monkeypatch, 3, lambda surface: seen.update(surface.digests(), known=len(surface._trainer.optimizer.state))
    )
    asked(run, "reset", {"optimizer": True}, 3)
    attempt(sft, run, replace(tuning(model), live=LiveConfig(digest_every=1)))
    assert told(run) == ["applied"]
    assert seen["known"] == 0
    assert seen["weights"] == next(event["weights"] for event in run.events("digest") if event["step"] == 3)


def test_a_checkpoint_of_another_model_is_refused_and_nothing_is_changed(model, tmp_path, monkeypatch):
    other, run, seen = new_run(tmp_path / "other"), new_run(tmp_path), []

    def look(surface):
        before = surface.digests()
        with pytest.raises(UserError, match=r"the checkpoint is of another model: base_model\..* differs"):
            surface.reset(checkpointed(other, 2), optimizer=False)
        seen.append(surface.digests() == before)

    attempt(sft, other, tuning(model, lora=LoraConfig(rank=4)))
    at_boundary(monkeypatch, 3, look)
    attempt(sft, run, tuning(model))
    assert seen == [True]


# Digests


@pytest.mark.parametrize("job", JOBS)
def test_a_resumed_run_notes_the_digests_of_the_uninterrupted_one(job, model, tmp_path):
    job, settings = JOBS[job]
    noted = []
    for stop_at in (None, 3):
        run = new_run(tmp_path / str(stop_at))
        config = replace(settings(model), live=LiveConfig(digest_every=1))
        if stop_at:
            assert attempt(job, run, config, stop_at=stop_at) is None
        attempt(job, run, config)
        noted.append([(event["step"], event["weights"], event["optimizer"]) for event in run.events("digest")])
    assert noted[0] == noted[1]
    assert len({weights for _, weights, _ in noted[0]}) == len({optimizer for *_, optimizer in noted[0]}) == STEPS


# Settings


def test_the_schedule_stretches_over_more_steps_and_can_be_another_one(model, tmp_path):
    settings, run = tuning(model), new_run(tmp_path)
    asked(run, "set", {"steps": 9}, 3)
    asked(run, "set", {"schedule": "constant"}, 7)
    asked(run, "set", {"schedule": "square"}, 8)
    outcome = attempt(sft, run, settings)
    assert told(run) == [
        "applied",
        "applied",
        "rejected: schedule must be linear or cosine or constant, not 'square'",
    ]
    rates = [values["learning_rate"] for values in metrics_of(run).values()]
    assert rates == pytest.approx(
        [0.01 * left / 6 for left in (6, 5, 4)] + [0.01 * left / 9 for left in (6, 5, 4, 3)] + [0.01, 0.01]
    )
    assert outcome.notes["steps"] == 9
    assert "stopped_early" not in outcome.notes


def test_a_run_at_its_last_step_can_be_told_to_go_further(model, tmp_path):
    run = new_run(tmp_path)
    asked(run, "set", {"steps": 8}, 6)
    assert attempt(sft, run, tuning(model)).notes["steps"] == 8
    assert list(metrics_of(run)) == list(range(1, 9))


@pytest.mark.parametrize("stop_at", [None, 4])
def test_schedule_steps_and_batch_size_hold_in_the_next_attempt(stop_at, model, tmp_path):
    def steered(folder):
        run = new_run(folder)
        for at, values in ((2, {"steps": 8, "schedule": "cosine"}), (3, {"batch_size": 8, "lr": "*2"})):
            asked(run, "set", values, at)
        return run

    settings = tuning(model, {"micro_batch_size": 2})
    calm, run = steered(tmp_path / "calm"), steered(tmp_path / "run")
    attempt(sft, calm, settings)
    if stop_at:
        assert attempt(sft, run, settings, stop_at=stop_at) is None
    attempt(sft, run, settings)
    assert metrics_of(run) == metrics_of(calm)
    assert max(metrics_of(run)) == 8
    assert weights_of(run) == weights_of(calm)


def test_the_number_of_prompts_can_be_changed_and_each_is_completed_as_often(model, tmp_path):
    run = new_run(tmp_path)
    for at, prompts in ((2, 4), (3, 3), (4, 1)):
        asked(run, "set", {"prompts_per_step": prompts}, at)
    attempt(grpo, run, improving(model, {"micro_batch_size": 4}))
    assert told(run) == [
        "applied",
        "rejected: prompts_per_step cannot be 3: it must make whole forward passes of 4 rows, or less than one, "
        "each of them 2 times",
        "applied",
    ]
    made = {}
    for event in run.events("rollout"):
        made.setdefault(event["step"], []).append(event["id"])
    assert [len(made[step]) for step in range(1, STEPS + 1)] == [4, 4, 8, 8, 2, 2]
    assert all(ids[0::2] == ids[1::2] for ids in made.values())
    distinct = [name for step in sorted(made) for name in made[step][0::2]]
    assert len(set(distinct)) == len(distinct) == 14, "an epoch of sixteen prompts goes on through all sizes"


def test_what_is_set_names_its_place_in_the_config(model, tmp_path, monkeypatch):
    keys = {}
    at_boundary(monkeypatch, 2, lambda surface: keys.update({one.name: one.key for one in surface.settings()}))
    attempt(grpo, new_run(tmp_path), improving(model))
    assert keys == {
        "temperature": "sampling.temperature",
        "reward_weights.long": "",
        "reward_weights.even": "",
        **{
            name: f"training.{name}"
            for name in ("lr", "schedule", "weight_decay", "max_grad_norm", "prompts_per_step", "steps")
        },
    }


# Samples


@config
class Words(Echo):
    """With something to ask for."""

    def examples(self, split):
        return [replace(one, fields={"letters": len(set(one.prompt))}) for one in super().examples(split)]


def reference(model, examples):
    """The losses of an example's tokens, one by one and without padding."""
    llama, tokenizer = LlamaForCausalLM.from_pretrained(model), AutoTokenizer.from_pretrained(model)
    found = []
    for example in examples:
        prompt = len(tokenizer(example.prompt)["input_ids"])
        ids = tokenizer(example.prompt + example.completion)["input_ids"] + [tokenizer.eos_token_id]
        with torch.no_grad():
            out = llama(torch.tensor([ids]), output_hidden_states=True)
        logs = out.logits[0, prompt - 1 : -1].log_softmax(-1)
        right = torch.tensor(ids[prompt:])[:, None]
        own = logs.gather(1, right)[:, 0]
        best = logs.scatter(1, right, -math.inf).max(1).values
        found.append(
            ((-own).numpy(), float((own - best).mean()), out.hidden_states[-1][0].mean(0).numpy(), ids[prompt:])
        )
    return found


@pytest.mark.parametrize("job", ["sft", "grpo"])
def test_samples_are_scored_as_they_are_trained(job, model, tmp_path, monkeypatch):
    job, settings = JOBS[job]
    run, seen = new_run(tmp_path), {}
    ids = np.array([7, 0, 12])

    def look(surface):
        generators = torch.get_rng_state()
        scorer = surface.scorer("train")
        seen.update(size=len(scorer), scores=scorer.score(ids, tokens=True), fields=scorer.fields(ids))
        assert torch.equal(torch.get_rng_state(), generators)

    at_boundary(monkeypatch, 2, look)
    # At a learning rate of 0 the model is the one on the disk.
    attempt(job, run, settings(model, {"lr": 0.0}, task=Words()))
    scores, tokenizer = seen["scores"], AutoTokenizer.from_pretrained(model)
    examples = [Words().examples("train")[one] for one in ids]
    for place, (losses, margin, embedding, targets) in enumerate(reference(model, examples)):
        assert scores.token_losses[place] == pytest.approx(losses, abs=1e-5)
        assert scores.loss[place] == pytest.approx(losses.mean(), abs=1e-5)
        assert scores.margin[place] == pytest.approx(margin, abs=1e-5)
        assert scores.embedding[place] == pytest.approx(embedding, abs=1e-5)
        assert scores.tokens[place] == [tokenizer.decode([one]) for one in targets]
        known = seen["fields"][place]
        assert (known["prompt"], known["completion"]) == (examples[place].prompt, examples[place].completion)
        assert known["letters"] == len(set(examples[place].prompt))
        assert known["length"] == len(tokenizer(examples[place].prompt + examples[place].completion)["input_ids"])
    assert seen["size"] == 16


class Open(Echo):
    def prompts(self, split):
        return [replace(one, completion=None) for one in self.examples(split)]


def test_prompts_without_an_answer_cannot_be_scored_but_chosen_by_their_fields(model, tmp_path):
    run = new_run(tmp_path)
    asked(run, "select", {"recipe": "hardest 25%"}, 2)
    asked(run, "select", {"recipe": "where length > 12"}, 3)
    attempt(grpo, run, improving(model, task=Open()))
    refused, applied = told(run)
    assert refused == (
        "rejected: train-0: samples are scored by their reference completions, and not every prompt has one"
    )
    assert applied == "applied"
    long = {one.id for one in Open().prompts("train") if len(one.prompt) > 12}
    assert {event["id"] for event in run.events("rollout") if event["step"] > 3} <= long


@pytest.mark.parametrize("stop_at", [None, 4])
def test_the_hardest_examples_are_what_is_trained_on_next(stop_at, model, tmp_path):
    runs = [new_run(tmp_path / "calm"), new_run(tmp_path / "run")]
    for run in runs:
        asked(run, "select", {"recipe": "hardest 25%"}, 2)
    config = tuning(model, {"lr": 0.0, "batch_size": 4})
    attempt(sft, runs[0], config)
    if stop_at:
        assert attempt(sft, runs[1], config, stop_at=stop_at) is None
    attempt(sft, runs[1], config)
    assert [event["outcome"] for run in runs for event in run.events("command") if event["verb"] == "select"] == [
        "applied",
        "applied",
    ]
    assert metrics_of(runs[1]) == metrics_of(runs[0])
    losses = sorted(float(losses.mean()) for losses, *_ in reference(model, Echo().examples("train")))
    later = [values["loss"] for step, values in metrics_of(runs[0]).items() if step > 2]
    # Four of sixteen are in each batch: its loss is a mean over tokens, of examples whose own means are the highest.
    assert min(later) >= losses[-4] - 1e-4


# Merges


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("optimizer", ["reset", "keep"])
def test_a_merge_with_what_it_is_changes_no_weight(optimizer, job, model, tmp_path, monkeypatch):
    job, settings = JOBS[job]
    run, seen = new_run(tmp_path), {}
    at_boundary(
        monkeypatch, 4, lambda surface: seen.update(surface.digests(), known=len(surface._trainer.optimizer.state))
    )
    asked(run, "merge", {"sources": [".", "4"], "optimizer": optimizer}, 4)
    attempt(job, run, replace(settings(model), live=LiveConfig(digest_every=1)))
    assert told(run) == ["applied"]
    assert seen["weights"] == next(event["weights"] for event in run.events("digest") if event["step"] == 4)
    assert (seen["known"] == 0) == (optimizer == "reset")


def test_merged_weights_are_the_mean(model, tmp_path, monkeypatch):
    run, seen = new_run(tmp_path), {}

    def look(surface):
        seen.update({name: one.detach().clone() for name, one in surface._trainer.model.named_parameters()})

    at_boundary(monkeypatch, 4, look)
    asked(run, "merge", {"sources": [".", "2"]}, 4)
    attempt(sft, run, tuning(model, lora=None))
    assert told(run) == ["applied"]
    two, four = (load_file(checkpointed(run, step) / "model.safetensors") for step in (2, 4))
    for name, one in two.items():
        torch.testing.assert_close(seen[name], (one + four[name]) / 2)


def test_a_merge_by_fisher_information_takes_the_examples_that_are_trained_on(model, tmp_path):
    run = new_run(tmp_path)
    asked(run, "merge", {"sources": [".", "2"], "method": {"type": "fisher", "samples": 4}}, 4)
    attempt(sft, run, tuning(model, lora=None))
    (event,) = run.events("command")
    assert event["outcome"] == "applied"
    assert event["result"]["method"]["type"] == "fisher"


# Health and trouble


@pytest.mark.parametrize("job", JOBS)
def test_a_run_says_how_it_is_doing_and_goes_on_as_before(job, model, tmp_path):
    job, settings = JOBS[job]
    quiet, run = new_run(tmp_path / "a"), new_run(tmp_path / "b")
    asked(run, "health", {}, 3)
    for one in (quiet, run):
        attempt(job, one, settings(model))
    assert told(run) == ["applied"]
    (event,) = run.events("health")
    assert event["report"]["verdict"] in ("well", "look", "bad")
    assert event["report"]["throughput"]["steps"] == 3
    assert weights_of(run) == weights_of(quiet)
    if job is sft:
        assert event["report"]["throughput"]["tokens_per_second"] > 0
        logged = [values["loss"] for step, values in metrics_of(run).items() if step <= 3]
        assert event["report"]["losses"]["newest"] == pytest.approx(logged[-1], rel=1e-5)


def spoiled(monkeypatch, step):
    """Let the gradient of one step be no number, once."""
    from transformers import Trainer

    usual, spoilt = Trainer.training_step, []

    def training_step(self, model, inputs, *args, **options):
        loss = usual(self, model, inputs, *args, **options)
        if self.state.global_step == step - 1 and step not in spoilt:
            spoilt.append(step)
            for one in model.parameters():
                if one.grad is not None:
                    one.grad.fill_(math.nan)
            return loss * math.nan
        return loss

    monkeypatch.setattr(Trainer, "training_step", training_step)


def test_a_loss_that_is_no_number_ends_the_run(model, tmp_path, monkeypatch):
    spoiled(monkeypatch, 3)
    with pytest.raises(RunFailed) as caught:
        attempt(sft, new_run(tmp_path), tuning(model))
    assert str(caught.value) == (
        "step 3: loss and grad_norm are no longer finite\n"
        "  lower the learning rate, or set live.on_nan to pause or rollback"
    )


@pytest.mark.parametrize("on_nan", ["stop", "rollback"])
def test_a_broken_state_is_not_saved_where_nothing_was_logged_yet(on_nan, model, tmp_path, monkeypatch):
    spoiled(monkeypatch, 3)
    run = new_run(tmp_path)
    settings = replace(tuning(model, {"log_every": 5}), live=LiveConfig(on_nan=on_nan))
    if on_nan == "stop":
        with pytest.raises(RunFailed, match="step 4: losses or weights are no longer finite"):
            attempt(sft, run, settings)
    else:
        attempt(sft, run, settings)
        assert told(run) == ["applied"]
        assert math.isfinite(float(metrics_of(run)[5]["loss"]))
    assert [path.name for path in sorted(run.checkpoints.glob("step-*"))][:2] == (
        ["step-00000002"] if on_nan == "stop" else ["step-00000002", "step-00000006"]
    )


def test_or_the_run_goes_on_from_the_last_good_weights_with_the_next_data(model, tmp_path, monkeypatch):
    spoiled(monkeypatch, 4)
    run = new_run(tmp_path)
    # Step 4 is one at which a checkpoint is due: weights that are none are not saved.
    attempt(sft, run, replace(tuning(model), live=LiveConfig(on_nan="rollback", digest_every=None)))
    assert [(one["verb"], one["at"], one["outcome"]) for one in run.events("command")] == [("reset", 4, "applied")]
    losses = {step: float(values["loss"]) for step, values in metrics_of(run).items()}
    assert [step for step, loss in losses.items() if not math.isfinite(loss)] == [4]
    assert all(
        math.isfinite(float(one.sum()))
        for one in load_file(run.artifacts / "adapter/adapter_model.safetensors").values()
    )
    assert not list(run.checkpoints.glob("step-*4"))
