from __future__ import annotations

import ctypes
import gc
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from clew.errors import UserError
from clew.models.config import ModelConfig
from clew.models.decoder import Decoder
from clew.models.exchange import as_huggingface, load_huggingface, save_huggingface
from clew.models.tokenizers import ByteTokenizer

CONFIGS = {
    "tied, from the dial": ModelConfig(depth=2),
    "untied, grouped": ModelConfig(depth=3, width=96, heads=6, kv_heads=2, tied=False),
    "one head for all": ModelConfig(depth=1, width=32, heads=4, kv_heads=1, rope_theta=5e5, norm_eps=1e-6),
}


@pytest.fixture(params=CONFIGS.values(), ids=CONFIGS)
def model(request):
    torch.manual_seed(0)
    model = Decoder(request.param, 258, 64)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)  # norm gains that are not all one
    return model


def test_an_export_has_the_logits_of_the_decoder(model, tmp_path):
    save_huggingface(model, ByteTokenizer().build([]), tmp_path)
    tokens = torch.randint(0, 258, (3, 64))
    with torch.no_grad():
        theirs = AutoModelForCausalLM.from_pretrained(tmp_path)(tokens).logits
        assert (theirs - model(tokens)).abs().max() < 1e-4


def test_an_export_loads_back_bitwise(model, tmp_path):
    save_huggingface(model, ByteTokenizer().build([]), tmp_path)
    again = load_huggingface(tmp_path)
    assert again.config.shape == model.config.shape
    assert (again.context, again.vocab_size) == (64, 258)
    for name, weight in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], weight), name
    tokens = torch.randint(0, 258, (3, 64))
    assert torch.equal(again(tokens), model(tokens))


def test_an_export_carries_its_tokenizer_and_stops_at_its_eos(tmp_path):
    save_huggingface(Decoder(ModelConfig(depth=1), 258, 64), ByteTokenizer().build([]), tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer("12+3=")["input_ids"] == list(b"12+3=")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert loaded.generation_config.eos_token_id == tokenizer.eos_token_id == 256
    assert loaded.generation_config.pad_token_id == tokenizer.pad_token_id == 257


def test_tied_embeddings_stay_tied(tmp_path):
    save_huggingface(Decoder(ModelConfig(depth=1), 258, 64), ByteTokenizer().build([]), tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attention_bias": True}, "does not support this model's attention_bias"),
        ({"hidden_act": "gelu"}, "does not support this model's hidden_act"),
        ({"head_dim": 64}, "does not support this model's head_dim"),
    ],
)
def test_a_llama_that_would_compute_something_else_is_refused(changes, message, tmp_path):
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    LlamaForCausalLM(LlamaConfig(vocab_size=50, **sizes, **changes)).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=message):
        load_huggingface(tmp_path)


def test_a_model_of_another_family_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(UserError, match="reads 'llama' models, and this is 'gpt2'"):
        load_huggingface(tmp_path)


@pytest.mark.parametrize("shard", ["40KB", "1GB"])
def test_shards_load_as_one_file_does(model, shard, tmp_path):
    as_huggingface(model, ByteTokenizer().build([])).save_pretrained(tmp_path, max_shard_size=shard)
    assert (tmp_path / "model.safetensors.index.json").is_file() == (shard == "40KB")
    again = load_huggingface(tmp_path)
    for name, weight in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], weight), name


def test_weights_of_another_precision_are_read_in_float32(model, tmp_path):
    save_huggingface(model.to(torch.bfloat16), ByteTokenizer().build([]), tmp_path)
    again = load_huggingface(tmp_path)
    assert {weight.dtype for weight in again.parameters()} == {torch.float32}
    assert torch.equal(again.embed.weight, model.embed.weight.float())


def test_weights_that_are_not_there_or_have_another_shape_are_named(model, tmp_path):
    save_huggingface(model, ByteTokenizer().build([]), tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    name = "model.norm.weight"
    save_file({**weights, name: torch.zeros(3)}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"model\.norm\.weight has the shape \[3\], and not \["):
        load_huggingface(tmp_path)
    save_file({other: value for other, value in weights.items() if other != name}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"the weights do not hold model\.norm\.weight"):
        load_huggingface(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"the weights are not there: model\.safetensors"):
        load_huggingface(tmp_path)


def peak() -> int:
    """The most memory that this process has held, in bytes, since it was last reset."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux says how much memory was held")
def test_no_second_copy_is_ever_in_memory(tmp_path):
    model = Decoder(ModelConfig(depth=6, width=512), 258, 64)
    as_huggingface(model, ByteTokenizer().build([])).save_pretrained(tmp_path, max_shard_size="5MB")
    size = sum(weight.nbytes for weight in model.parameters())
    del model
    again = load_huggingface(tmp_path)  # imports, and what the first model has left
    del again
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what is held for later would hide what is taken
    Path("/proc/self/clear_refs").write_text("5")
    before = peak()
    load_huggingface(tmp_path)
    assert 0.8 * size < peak() - before < 1.4 * size
