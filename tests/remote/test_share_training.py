"""A real adapter: trained on a base from the Hub, stopped, gone on with in another workspace, and used in a third."""

from __future__ import annotations

import pytest
from pushed_runs import attempt, done_run

from clew.jobs import create_job_run, load_job
from clew.remote.pull import pull
from clew.remote.push import push
from clew.runs import State, Workspace
from clew.runs.files import file_digest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # the libraries' own; the training is in this process, to import them once
]

SFT = {
    "job": "sft",
    "model": "hf://me/base",
    "task": {"type": "arithmetic", "max_operand": 30, "train_size": 200, "validation_size": 20, "test_size": 20},
    "training": {"steps": 6, "batch_size": 4, "lr": 1e-3, "validate_every": 3},
    "checkpoint": {"every": 5},
    "runtime": {"device": "cpu", "threads": 1},
}


@pytest.fixture
def base(hub, tmp_path):
    """A small random model on the Hub."""
    import torch

    from clew.models.config import ModelConfig
    from clew.models.decoder import Decoder
    from clew.models.exchange import save_huggingface
    from clew.models.tokenizers import ByteTokenizer, vocab_size

    torch.manual_seed(0)
    tokenizer = ByteTokenizer().build([])
    run = done_run(Workspace(tmp_path / "base"))
    save_huggingface(
        Decoder(ModelConfig(depth=1), vocab_size(tokenizer), context=64), tokenizer, run.artifacts / "model"
    )
    return push(run, "hf://me/base").remote


def weights(run):
    return {path.relative_to(run.path).as_posix(): file_digest(path) for path in run.artifacts.rglob("*.safetensors")}


def test_an_adapter_is_trained_here_finished_there_and_used_elsewhere(base, here, there, tmp_path):
    whole = attempt(create_job_run(here, load_job({**SFT, "name": "whole"})))
    run = attempt(create_job_run(here, load_job({**SFT, "name": "tune"})), stop=True)
    assert (whole.state, run.state) == (State.COMPLETED, State.STOPPED)
    push(run, "hf://me/tune")
    away = attempt(pull("hf://me/tune", there).run)
    assert away.state is State.COMPLETED
    assert weights(away)
    assert weights(away) == weights(whole)
    assert away.result.metrics == whole.result.metrics

    from clew.models.loading import load_model
    from clew.models.source import resolve

    push(away, "hf://me/tune")
    source = resolve("hf://me/tune", tmp_path / "third" / "runs")
    assert source.reference == f"hf://me/base@{base.revision}"
    theirs = load_model(source).state_dict()
    ours = load_model(resolve("run:whole", here.runs)).state_dict()
    assert all((theirs[name] == ours[name]).all() for name in ours)
