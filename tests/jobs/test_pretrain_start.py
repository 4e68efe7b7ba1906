"""A pretraining that begins with weights which are there, instead of drawn ones."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from clew.config import config, config_hash
from clew.data.config import DataConfig
from clew.errors import UserError
from clew.jobs.importing import import_model
from clew.jobs.pretrain import PretrainConfig, pretrain
from clew.jobs.starting import find_start, sizes_of
from clew.models.config import ModelConfig
from clew.models.decoder import Decoder
from clew.models.exchange import as_huggingface
from clew.models.tokenizers import BpeTokenizer, ByteTokenizer
from clew.runs import Owner, RunInfo, State, Workspace, create_run
from clew.session import Session
from clew.tasks import Task
from clew.train import TrainingConfig

SIZES = {"depth": 2, "width": 16, "heads": 2, "kv_heads": 1, "mlp_width": 24}
MODEL = ModelConfig(**SIZES)
MOVES_NOTHING = 1e-30


@config
class Words(Task):
    """Three words over and over."""

    def documents(self, split: str) -> Iterable[str]:
        return ["one two three"] * 20


@pytest.fixture
def folder(tmp_path):
    """A model with more rows of embeddings than its tokenizer has tokens, in several files, in bfloat16."""
    torch.manual_seed(1)
    tokenizer = ByteTokenizer().build([])
    model = Decoder(MODEL, 320, 64).to(torch.bfloat16)
    as_huggingface(model, tokenizer).save_pretrained(tmp_path / "hub", max_shard_size="4KB")
    tokenizer.save_pretrained(tmp_path / "hub")
    return tmp_path / "hub"


def settings(start: object, **changes) -> PretrainConfig:
    training = TrainingConfig(steps=1, batch_size=2, lr=MOVES_NOTHING)
    fields = {"task": Words(), "model": MODEL, "data": DataConfig(seq_len=16), "training": training}
    return PretrainConfig(**fields | {"start": str(start)} | changes)


def trained(folder: Path, config: PretrainConfig) -> dict[str, torch.Tensor]:
    run = create_run(folder / "runs", RunInfo(id="r", job="pretrain"), "", {})
    number = run.states.queue()
    for state in (State.STARTING, State.RUNNING):
        run.states.move(state, attempt=number, owner=Owner.current())
    with Session(run, config, number) as session:
        pretrain.run(session)
    return load_file(run.artifacts / "model" / "model.safetensors")


@pytest.mark.slow
def test_it_begins_with_those_very_weights(folder, tmp_path):
    import_model(folder, Workspace(tmp_path), "base")
    found = trained(tmp_path, settings("run:base"))
    expected = {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor.float()), name


def test_weights_of_other_sizes_are_refused_with_the_sizes_to_set(folder, tmp_path):
    tokenizer = ByteTokenizer().build([])
    with pytest.raises(UserError, match="of another model than `model` describes") as error:
        find_start(str(folder), tmp_path, ModelConfig(**SIZES | {"width": 32}), tokenizer)
    assert error.value.hint == "set model.width=16"
    assert find_start(str(folder), tmp_path, MODEL, tokenizer).vocab_size == 320
    assert sizes_of(MODEL) == SIZES


def test_weights_for_other_tokens_are_refused(folder, tmp_path):
    tokenizer = BpeTokenizer(vocab_size=260).build(["one two three"])
    with pytest.raises(UserError, match="made for another tokenizer") as error:
        find_start(str(folder), tmp_path, MODEL, tokenizer)
    assert error.value.hint == f"set tokenizer={{type: huggingface, path: {folder}}}"


def test_what_is_no_whole_model_is_refused(tmp_path):
    (tmp_path / "m.gguf").write_bytes(b"x")
    with pytest.raises(UserError, match="begins with a whole model in a folder"):
        find_start(str(tmp_path / "m.gguf"), tmp_path, MODEL, ByteTokenizer().build([]))


def test_what_is_not_there_is_said_before_anything_starts(tmp_path):
    with pytest.raises(UserError, match="there is no run 'nobody'"):
        pretrain.check(settings("run:nobody"), tmp_path)


def test_configs_that_say_nothing_of_it_keep_their_hash(folder):
    plain = PretrainConfig(task=Words(), model=MODEL)
    assert config_hash(PretrainConfig(task=Words(), model=MODEL, start=None)) == config_hash(plain)
    assert config_hash(PretrainConfig(task=Words(), model=MODEL, start=str(folder))) != config_hash(plain)
