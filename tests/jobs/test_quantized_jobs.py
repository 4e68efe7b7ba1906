"""Jobs on a model whose weights are in 4 or 8 bits: it is evaluated, and an adapter is trained beside it (QLoRA)."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from clew.engines import GenerationConfig
from clew.errors import UserError
from clew.jobs import create_job_run, load_job
from clew.jobs.base import CheckpointConfig, RuntimeConfig
from clew.jobs.eval import EvalConfig, evaluate
from clew.jobs.export import ExportConfig, export
from clew.jobs.grpo import GrpoConfig, GrpoTraining, SamplingConfig, grpo
from clew.jobs.sft import SftConfig, SftTraining, sft
from clew.models.config import ModelConfig
from clew.models.decoder import Decoder
from clew.models.exchange import save_huggingface
from clew.models.loading import load_model
from clew.models.source import resolve
from clew.models.tokenizers import ByteTokenizer, vocab_size
from clew.runs import Owner, RunInfo, State, Workspace, create_run
from clew.session import RunStopped, Session
from clew.tasks.arithmetic import ArithmeticTask

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # TRL and PEFT ask Transformers by old names
]

TASK = ArithmeticTask(max_operand=9, train_size=40, validation_size=10, test_size=10)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    tokenizer = ByteTokenizer().build([])
    folder = tmp_path_factory.mktemp("model")
    save_huggingface(Decoder(ModelConfig(depth=1), vocab_size(tokenizer), context=64), tokenizer, folder)
    return str(folder)


def make_run(tmp_path, name):
    return create_run(tmp_path / "runs", RunInfo(id=name, job="sft"), "{}", {})


def attempt(run, job, config, *, stop=False):
    number = run.states.queue()
    for state in (State.STARTING, State.RUNNING):
        run.states.move(state, attempt=number, owner=Owner.current())
    if stop:
        run.inbox.send("stop")
    try:
        with Session(run, config, number) as session:
            return job.run(session)
    except RunStopped as stopped:
        run.states.move(stopped.state, attempt=number)


def tuning(model, quantize):
    return SftConfig(
        model=model, task=TASK, quantize=quantize, training=SftTraining(steps=4, batch_size=8, lr=1e-2),
        runtime=RuntimeConfig(device="cpu", threads=1), checkpoint=CheckpointConfig(every=2),
    )  # fmt: skip


def test_a_quantised_model_is_evaluated(model, tmp_path):
    config = EvalConfig(model=model, task=TASK, quantize="int8", generation=GenerationConfig(max_new_tokens=4))
    assert attempt(make_run(tmp_path, "e"), evaluate, config).metrics["count"] == len(TASK.problems("test"))


@pytest.mark.parametrize("quantize", ["int8", "nf4"])
def test_an_adapter_of_a_quantised_model_resumes_bitwise_and_is_folded_into_the_whole_base(model, tmp_path, quantize):
    whole, parted = make_run(tmp_path, "whole"), make_run(tmp_path, "parted")
    attempt(whole, sft, tuning(model, quantize))
    attempt(parted, sft, tuning(model, quantize), stop=True)
    assert not (parted.artifacts / "adapter").exists()
    attempt(parted, sft, tuning(model, quantize))
    ours, theirs = (load_file(run.artifacts / "adapter" / "adapter_model.safetensors") for run in (parted, whole))
    assert ours.keys() == theirs.keys()
    assert all("lora_" in name for name in ours)
    assert all(torch.equal(ours[name], theirs[name]) and ours[name].dtype == torch.float32 for name in ours)
    assert all(tensor.any() for name, tensor in ours.items() if "lora_B" in name)

    out = make_run(tmp_path, "out")
    attempt(out, export, ExportConfig(model="run:whole"))
    folded = load_model(resolve("run:out", tmp_path / "runs"))
    expected = load_model(resolve("run:whole", tmp_path / "runs"))
    assert torch.allclose(folded(torch.arange(8)[None]).logits, expected(torch.arange(8)[None]).logits, atol=1e-4)


def test_an_adapter_beside_quantised_weights_is_improved_on_rewards(model, tmp_path):
    config = GrpoConfig(
        model=model, task=TASK, quantize="nf4", runtime=RuntimeConfig(device="cpu", threads=1),
        training=GrpoTraining(steps=2, prompts_per_step=2, generations=2), sampling=SamplingConfig(max_new_tokens=4),
    )  # fmt: skip
    run = make_run(tmp_path, "g")
    attempt(run, grpo, config)
    assert [event["step"] for event in run.events("rollout")] == [1] * 4 + [2] * 4
    assert (run.artifacts / "adapter" / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize("job", ["sft", "grpo"])
def test_training_every_weight_of_a_quantised_model_is_refused_before_the_start(job, model, tmp_path):
    config = {"job": job, "name": "r", "model": model, "task": {"type": "arithmetic"}, "lora": None, "quantize": "nf4"}
    with pytest.raises(UserError, match="loaded as nf4 cannot be trained, only an adapter beside them"):
        create_job_run(Workspace(tmp_path), load_job(config))
    assert Workspace(tmp_path).list_runs() == []
