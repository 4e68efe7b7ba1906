"""Kill real runs with SIGKILL, in a step and in the middle of a save: they end in the same weights, bit by bit."""

import os
import signal
from pathlib import Path

import pytest

from clew.jobs import create_job_run, load_job
from clew.runs import State, Workspace
from clew.runs.files import file_digest
from clew.targets import LocalTarget
from clew.targets.watching import Silent, follow
from support import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("borne")]

TASK = {"type": "arithmetic", "max_operand": 30, "train_size": 200, "validation_size": 20, "test_size": 20}
RUNTIME = {"device": "cpu", "threads": 1}
# Saves are cut short by killing the process inside the n-th move of a finished file into the store.
DIES_IN_A_SAVE = """
import os, shutil, signal
move, calls = shutil.move, 0
def dying(*args, **kwargs):
    global calls
    calls += 1
    if calls == {number}:
        os.kill(os.getpid(), signal.SIGKILL)
    return move(*args, **kwargs)
shutil.move = dying
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A small random model in the Hugging Face layout."""
    import torch

    from clew.models.config import ModelConfig
    from clew.models.decoder import Decoder
    from clew.models.exchange import save_huggingface
    from clew.models.tokenizers import ByteTokenizer, vocab_size

    torch.manual_seed(0)
    tokenizer = ByteTokenizer().build([])
    folder = tmp_path_factory.mktemp("model") / "model"
    save_huggingface(Decoder(ModelConfig(depth=1), vocab_size(tokenizer), context=64), tokenizer, folder)
    return str(folder)


CONFIGS = {
    "pretrain": {
        "model": {"depth": 1},
        "data": {"seq_len": 32},
        "training": {"steps": 160, "batch_size": 8, "log_every": 1, "validate_every": 20},
        "checkpoint": {"every": 20},
    },
    "sft": {
        "training": {"steps": 40, "batch_size": 8, "lr": 1e-3, "validate_every": 10, "log_every": 3},
        "evaluate": {"every": 5, "limit": 8, "best_by": "format", "generation": {"max_new_tokens": 4}},
        "checkpoint": {"every": 5},
        "publish": "best",
    },
    "sft-full": {
        "lora": None,
        "training": {"steps": 20, "batch_size": 8, "micro_batch_size": 4},
        "checkpoint": {"every": 5},
    },
    "grpo": {
        "lora": {"dropout": 0.1},
        "training": {"steps": 20, "prompts_per_step": 2, "generations": 4, "lr": 1e-3, "beta": 0.05},
        "sampling": {"max_new_tokens": 6},
        "checkpoint": {"every": 4},
    },
}


def create(workspace, case, name, model):
    config = {"job": case.partition("-")[0], "name": name, "task": TASK, "runtime": RUNTIME, **CONFIGS[case]}
    if config["job"] != "pretrain":
        config["model"] = model
    return create_job_run(workspace, load_job(config))


def kill_at(run, step):
    """Start the next attempt and kill it once it has logged a step."""
    worker = LocalTarget().launch(run)
    wait_until(lambda: any(event["step"] >= step for event in run.events("metric")), seconds=120)
    os.kill(run.states.read().owner.pid, signal.SIGKILL)
    assert follow(worker, Silent()) is State.INTERRUPTED


def finish(run):
    assert follow(LocalTarget().launch(run), Silent()) is State.COMPLETED, run.result.failure


def weights(run):
    return {path.relative_to(run.path).as_posix(): file_digest(path) for path in run.artifacts.rglob("*.safetensors")}


def numbers(run):
    """Everything that was logged, without what depends on the clock."""
    clocks = ("time", "second", "runtime")
    return [
        (event["step"], {name: value for name, value in event["values"].items() if not any(c in name for c in clocks)})
        for event in run.events("metric")
    ]


def rollouts(run):
    """What was asked and answered, in order, and what it was worth; nothing but for grpo."""
    fields = ("step", "id", "completion", "rewards", "reward")
    return [[event[name] for name in fields] for event in run.events("rollout")]


@pytest.mark.parametrize("case", CONFIGS)
def test_a_killed_run_ends_in_the_same_weights_and_metrics(tmp_path, monkeypatch, model, case):
    workspace = Workspace(tmp_path)
    whole = create(workspace, case, "whole", model)
    finish(whole)
    run = create(workspace, case, "killed", model)
    if case == "sft":
        # Nine files make a checkpoint here: die inside of the second save.
        patch = Path(tmp_path / "patch")
        patch.mkdir()
        (patch / "sitecustomize.py").write_text(DIES_IN_A_SAVE.format(number=13))
        with monkeypatch.context() as context:
            context.setenv("PYTHONPATH", f"{patch}:{os.environ.get('PYTHONPATH', '')}")
            assert follow(LocalTarget().launch(run), Silent()) is State.INTERRUPTED
        assert list(run.checkpoints.glob(".saving-*"))
        assert [path.name for path in run.checkpoints.glob("step-*")] == ["step-00000005"]
    kill_at(run, step={"pretrain": 50, "sft": 17, "sft-full": 7, "grpo": 9}[case])
    finish(run)
    assert weights(run)
    assert weights(run) == weights(whole)
    assert run.result.metrics == whole.result.metrics
    assert numbers(run) == numbers(whole)
    assert rollouts(run) == rollouts(whole)


def test_a_stopped_grpo_run_has_every_rollout_once_with_all_its_rewards(tmp_path, model):
    run = create(Workspace(tmp_path), "grpo", "stopped", model)
    worker = LocalTarget().launch(run)
    wait_until(lambda: any(event["step"] >= 6 for event in run.events("metric")), seconds=120)
    run.inbox.send("stop")
    assert follow(worker, Silent()) is State.STOPPED
    finish(run)
    rollouts = list(run.events("rollout"))
    assert [event["step"] for event in rollouts] == [step for step in range(1, 21) for _ in range(8)]
    assert all(set(event["rewards"]) == {"exact", "format"} for event in rollouts)
