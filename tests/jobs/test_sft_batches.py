"""What fine-tuning learns from: batches however they are cut, a task's own batches, lengths that fit, padding."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, LlamaForCausalLM
from tuning_support import Echo, attempt, metrics_of, new_run, save_model, weights_of

from clew.errors import UserError
from clew.jobs.base import RuntimeConfig
from clew.jobs.grpo import GrpoConfig, GrpoTraining, SamplingConfig, grpo
from clew.jobs.sft import SftConfig, SftTraining, sft
from clew.jobs.tuning import LoraConfig
from clew.tasks import Example
from clew.tasks.labels import label

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model") / "m")


def settings(model, training=None, **changes):
    fields = {
        "model": model,
        "task": Echo(),
        "lora": None,
        "training": SftTraining(**{"steps": 4, "batch_size": 8, "lr": 1e-3} | (training or {})),
        "runtime": RuntimeConfig(threads=1),
    }
    return SftConfig(**fields | changes)


def test_ragged_batches_give_the_same_however_they_are_cut(model, tmp_path):
    """8 x 1 = 4 x 2 = 1 x 8: a token counts the same in a short example as in a long one."""
    runs = {size: new_run(tmp_path / str(size)) for size in (8, 4, 1)}
    for size, run in runs.items():
        attempt(sft, run, settings(model, {"micro_batch_size": size}))
    whole = metrics_of(runs[8])
    weights = {size: load_file(run.artifacts / "model/model.safetensors") for size, run in runs.items()}
    start = load_file(f"{model}/model.safetensors")
    moved = max(float((weights[8][name] - start[name]).abs().max()) for name in start)
    for size in (4, 1):
        for step, values in metrics_of(runs[size]).items():
            assert values["loss"] == pytest.approx(whole[step]["loss"], rel=1e-5), (size, step)
            assert values["grad_norm"] == pytest.approx(whole[step]["grad_norm"], rel=1e-4), (size, step)
        for name, tensor in weights[size].items():
            assert float((tensor - weights[8][name]).abs().max()) < moved / 100, (size, name)


@pytest.mark.parametrize(("steps", "epochs", "made"), [(7, 1.0, 7), (None, 1.0, 2), (None, 1.25, 3)])
def test_a_run_makes_exactly_its_steps_also_when_it_was_stopped(steps, epochs, made, model, tmp_path):
    config = settings(model, {"steps": steps, "epochs": epochs, "lr": 0.0})
    run = new_run(tmp_path)
    assert attempt(sft, run, config, stop_at=made - 1) is None
    assert attempt(sft, run, config).notes["steps"] == made
    assert list(metrics_of(run)) == list(range(1, made + 1))


class LastOnly(Echo):
    """Learns the last token of each answer only."""

    def collate(self, features, default):
        batch = default(features)
        labels = batch["labels"]
        last = (labels != -100).cumsum(1).argmax(1)
        kept = labels.new_full(labels.shape, -100)
        kept.scatter_(1, last[:, None], labels.gather(1, last[:, None]))
        return {**batch, "labels": kept}


class Cut(Echo):
    def collate(self, features, default):
        batch = default(features)
        return {**batch, "labels": batch["labels"][:, 1:]}


def test_a_task_can_make_its_batches_itself(model, tmp_path):
    run = new_run(tmp_path)
    attempt(sft, run, settings(model, {"steps": 2, "lr": 0.0, "validate_every": 1}, task=LastOnly()))
    llama, tokenizer = LlamaForCausalLM.from_pretrained(model), AutoTokenizer.from_pretrained(model)
    losses = []
    for example in Echo().examples("validation"):
        ids = tokenizer(example.prompt + example.completion, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            losses.append(-float(llama(ids).logits[0, -1].log_softmax(0)[tokenizer.eos_token_id]))
    logged = metrics_of(run)
    assert logged[2]["eval_loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-5)
    # Two steps of eight examples are all sixteen of the training split, which are those of the other splits.
    assert (logged[1]["loss"] + logged[2]["loss"]) / 2 == pytest.approx(sum(losses) / len(losses), rel=1e-5)


def test_the_labels_that_are_shown_are_those_of_the_tasks_own_batches(model):
    tokenizer, examples = AutoTokenizer.from_pretrained(model), Echo().examples("train")[:3]
    assert [one.num_trained for one in label(examples, tokenizer, task=LastOnly())] == [1, 1, 1]
    assert label(examples, tokenizer, task=Echo()) == label(examples, tokenizer)


def test_a_batch_of_the_wrong_shape_is_named(model, tmp_path):
    with pytest.raises(UserError) as caught:
        attempt(sft, new_run(tmp_path), settings(model, task=Cut()))
    assert str(caught.value).startswith("collate() of the task Cut gave input_ids [8, ")
    assert "for 8 examples\n  all of them are tensors [examples, tokens]" in str(caught.value)


class Long(Echo):
    def examples(self, split):
        return [*super().examples(split), Example("long", "x" * 60, "yyyyy")]


class Mute(Echo):
    def examples(self, split):
        return [Example("nothing", "", "y")]


def asked(model, task, **sampling):
    return GrpoConfig(
        model=model,
        task=task,
        lora=LoraConfig(rank=2),
        sampling=SamplingConfig(**sampling),
        training=GrpoTraining(steps=1, prompts_per_step=2, generations=2),
        runtime=RuntimeConfig(threads=1),
    )


def test_a_text_that_does_not_fit_into_the_model_is_named_before_the_training(model, tmp_path):
    with pytest.raises(UserError) as caught:
        attempt(sft, new_run(tmp_path / "a"), settings(model, task=Long()))
    assert str(caught.value) == (
        "train example long: an example has 66 tokens, more than the model's context of 64\n"
        "  shorten or drop the example"
    )
    with pytest.raises(UserError) as caught:
        attempt(grpo, new_run(tmp_path / "b"), asked(model, Long(), max_new_tokens=8))
    assert str(caught.value) == (
        "train prompt long: a prompt has 60 tokens, 68 with sampling.max_new_tokens=8, more than the model's context "
        "of 64\n  shorten or drop the prompt, or lower sampling.max_new_tokens"
    )
    assert attempt(grpo, new_run(tmp_path / "c"), asked(model, Long(), max_new_tokens=4)).notes["prompts"] == 17
    with pytest.raises(UserError, match="train prompt nothing: the prompt is empty"):
        attempt(grpo, new_run(tmp_path / "d"), asked(model, Mute(), max_new_tokens=4))


def test_a_tokenizer_without_a_padding_token_gives_the_same(model, tmp_path):
    """The end token pads in its place; where it ends an answer it is trained all the same."""
    bare = save_model(tmp_path / "bare", pad=False)
    for job, make in ((sft, settings), (grpo, lambda model: asked(model, Echo(), max_new_tokens=6))):
        runs = [new_run(tmp_path / f"{job.config.__name__}-{name}") for name in ("padded", "bare")]
        for run, name in zip(runs, (model, bare), strict=True):
            attempt(job, run, make(name))
        assert metrics_of(runs[0]) == metrics_of(runs[1])
        assert weights_of(runs[0]) == weights_of(runs[1])
