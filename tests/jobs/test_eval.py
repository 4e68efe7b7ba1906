from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from clew.engines import GenerationConfig
from clew.errors import DataError, UserError
from clew.jobs.base import CheckpointConfig, RuntimeConfig
from clew.jobs.eval import EvalConfig, evaluate
from clew.models.tokenizers import ByteTokenizer
from clew.runs import Command, Owner, RunInfo, State, create_run
from clew.session import RunStopped, Session
from clew.tasks import MissingPart, Task
from clew.tasks.arithmetic import ArithmeticTask

TASK = ArithmeticTask(test_size=30)
GENERATION = GenerationConfig(max_new_tokens=4, batch_tokens=50)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    tokenizer = ByteTokenizer().build([])
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=32,
        initializer_range=0.4,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def config_of(model):
    def config_of(**options):
        defaults = {"model": model, "task": TASK, "generation": GENERATION, "runtime": RuntimeConfig(threads=1)}
        return EvalConfig(**{**defaults, **options})

    return config_of


def make_run(tmp_path, name="e"):
    return create_run(tmp_path / "runs", RunInfo(id=name, job="eval"), "{}", {})


def attempt(run, config, *, stop=False):
    number = run.states.queue()
    for state in (State.STARTING, State.RUNNING):
        run.states.move(state, attempt=number, owner=Owner.current())
    if stop:
        run.inbox.post(Command("stop", at=1))
    try:
        with Session(run, config, number) as session:
            return evaluate.run(session)
    except RunStopped as stopped:
        run.states.move(stopped.state, attempt=number)
        raise


def records_of(run):
    return [json.loads(line) for line in (run.artifacts / "generations.jsonl").read_text().splitlines()]


def test_metrics_are_means_and_every_generation_is_kept(tmp_path, config_of):
    run = make_run(tmp_path)
    outcome = attempt(run, config_of())
    records = records_of(run)
    assert [record["id"] for record in records] == [example.id for example in TASK.examples("test")]
    for name in ("exact", "format"):
        assert outcome.metrics[name] == pytest.approx(sum(one["metrics"][name] for one in records) / 30)
    assert outcome.metrics["count"] == 30
    assert outcome.notes["truncated"] == sum(record["finish"] == "length" for record in records)


def test_the_journal_tells_every_generation_and_how_far_it_goes(tmp_path, config_of):
    run = make_run(tmp_path)
    outcome = attempt(run, config_of())
    events = list(run.events("generation"))
    assert sorted(event["index"] for event in events) == list(range(30))
    assert {"step", "id", "prompt", "completion", "reference", "metrics"} <= events[0].keys()
    (horizon,) = run.events("horizon")
    assert (horizon["total"], horizon["unit"]) == (max(event["step"] for event in events), "batch")
    *_, last = run.events("metric")
    assert last["values"]["exact"] == outcome.metrics["exact"]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_stopped_evaluation_goes_on_where_it_stood_and_gives_the_same(temperature, tmp_path, config_of):
    generation = GenerationConfig(max_new_tokens=4, batch_tokens=50, temperature=temperature)
    config = config_of(generation=generation, checkpoint=CheckpointConfig(every=100))
    whole, broken = make_run(tmp_path, "whole"), make_run(tmp_path, "broken")
    outcome = attempt(whole, config)
    with pytest.raises(RunStopped, match="at step 1"):
        attempt(broken, config, stop=True)
    assert attempt(broken, config) == outcome
    assert records_of(broken) == records_of(whole)
    indices = [event["index"] for event in broken.events("generation")]
    assert sorted(indices) == list(range(30))


def test_a_limit_takes_the_first_problems(tmp_path, config_of):
    run = make_run(tmp_path)
    assert attempt(run, config_of(limit=7)).metrics["count"] == 7
    assert [record["index"] for record in records_of(run)] == list(range(7))


def test_a_model_of_a_run_beside_this_one_is_found(tmp_path, config_of, model):
    other = make_run(tmp_path, "other")
    (other.artifacts / "model").symlink_to(model)
    assert attempt(make_run(tmp_path), config_of(model="run:other", limit=1)).metrics["count"] == 1


def test_what_is_wrong_is_said_before_the_start(tmp_path, config_of):
    with pytest.raises(UserError, match="there is no run 'nobody'"):
        evaluate.check(config_of(model="run:nobody"), tmp_path)
    with pytest.raises(MissingPart, match="the task Task has no problems, which eval needs"):
        evaluate.check(config_of(task=Task()), tmp_path)
    evaluate.check(config_of(), tmp_path)


def test_a_task_without_problems_is_an_error(tmp_path, config_of, monkeypatch):
    monkeypatch.setattr(ArithmeticTask, "problems", lambda self, split: [])
    with pytest.raises(DataError, match="the task ArithmeticTask has no problems in the split 'test'"):
        attempt(make_run(tmp_path), config_of())


def test_the_config_is_known_without_torch():
    code = "import sys, clew.jobs.eval; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


SAMPLED = GenerationConfig(max_new_tokens=2, batch_tokens=50, temperature=1.0)


class Lengths(ArithmeticTask):
    """Scores that are no successes."""

    def metrics(self, example, completion):
        return {"format": float(completion.isascii()), "length": len(completion)}


def test_several_samples_are_all_kept_and_the_first_is_that_of_a_single_one(tmp_path, config_of):
    one, many = make_run(tmp_path, "one"), make_run(tmp_path, "many")
    attempt(one, config_of(generation=SAMPLED, limit=6))
    outcome = attempt(many, config_of(generation=SAMPLED, limit=6, samples=3))
    records = records_of(many)
    assert [(record["index"], record["sample"]) for record in records] == [(i, s) for i in range(6) for s in range(3)]
    assert [record for record in records if record["sample"] == 0] == records_of(one)
    assert len({record["completion"] for record in records if record["index"] == 0}) > 1
    events = [(event["index"], event["sample"]) for event in many.events("generation")]
    assert sorted(events) == [(i, s) for i in range(6) for s in range(3)]
    assert outcome.metrics["count"] == 6
    assert outcome.notes["samples"] == 3


def test_every_metric_has_an_interval_and_successes_have_pass_at_k(tmp_path, config_of):
    task = Lengths(test_size=30)
    run = make_run(tmp_path)
    outcome = attempt(run, config_of(task=task, generation=SAMPLED, samples=5))
    intervals = outcome.intervals
    expected = {"format", "length", "format/pass@2", "format/pass@4", "format/pass@5"}
    assert intervals.keys() == expected == outcome.metrics.keys() - {"count"}
    for name, found in intervals.items():
        assert found["low"] <= outcome.metrics[name] <= found["high"]
        assert found["method"] == ("bootstrap" if name == "length" else "wilson")
    right = [sum(one["metrics"]["format"] for one in records_of(run) if one["index"] == index) for index in range(30)]
    assert outcome.metrics["format"] == pytest.approx(sum(right) / 150)
    assert outcome.metrics["format/pass@5"] == pytest.approx(sum(one > 0 for one in right) / 30)
    assert outcome.metrics["format"] < outcome.metrics["format/pass@2"] < outcome.metrics["format/pass@5"]


def test_a_stopped_evaluation_of_several_samples_gives_the_same(tmp_path, config_of):
    config = config_of(task=Lengths(test_size=30), generation=SAMPLED, samples=2, limit=9)
    whole, broken = make_run(tmp_path, "whole"), make_run(tmp_path, "broken")
    outcome = attempt(whole, config)
    with pytest.raises(RunStopped):
        attempt(broken, config, stop=True)
    assert attempt(broken, config) == outcome
    assert records_of(broken) == records_of(whole)


def test_the_ks_follow_from_the_samples_or_are_given(config_of):
    assert config_of().ks == []
    assert config_of(generation=SAMPLED, samples=10).ks == [2, 4, 8, 10]
    assert config_of(generation=SAMPLED, samples=8).ks == [2, 4, 8]
    assert config_of(generation=SAMPLED, samples=9, pass_at=[5, 1]).ks == [1, 5]


def test_samples_that_say_nothing_new_are_refused(config_of):
    with pytest.raises(
        ValueError, match=r"samples and generation.temperature: 4 answers at temperature 0 are all the same one"
    ):
        config_of(samples=4)
    with pytest.raises(ValueError, match=r"pass_at and samples: pass@8 needs at least 8 samples, not 2"):
        config_of(samples=2, generation=SAMPLED, pass_at=[1, 8])
