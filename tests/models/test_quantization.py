from __future__ import annotations

import sys

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from clew.errors import UserError
from clew.models.loading import load_model
from clew.models.quantization import check_trainable
from clew.models.source import ModelSource

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")

IDS = torch.arange(20)[None]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=256, intermediate_size=512, num_hidden_layers=2, num_attention_heads=4
    )
    folder = tmp_path_factory.mktemp("quantised")
    LlamaForCausalLM(config).save_pretrained(folder)
    return ModelSource(base=str(folder))


def linear_bytes(model):
    """Bytes of the weights in the layers, where all large matrices of a Llama are."""
    return sum(weight.nbytes for weight in model.model.layers.parameters() if weight.dim() > 1)


@pytest.mark.parametrize(("kind", "ratio"), [("int8", 4), ("nf4", 8), ("fp4", 8)])
def test_quantised_weights_take_the_memory_of_their_bits_and_compute_nearly_the_same(kind, ratio, source):
    plain, quantised = load_model(source), load_model(source, quantize=kind)
    assert linear_bytes(plain) == ratio * linear_bytes(quantised)
    assert quantised.model.embed_tokens.weight.dtype == quantised.lm_head.weight.dtype == torch.float32
    with torch.no_grad():
        ours, exact = quantised(IDS).logits, plain(IDS).logits
    assert torch.equal(ours, quantised(IDS).logits)
    error = float((ours - exact).norm() / exact.norm())
    assert 0 < error < {"int8": 0.05, "nf4": 0.3, "fp4": 0.4}[kind]


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_an_adapter_is_trained_beside_weights_that_are_frozen(kind, source, tmp_path):
    import peft

    base = load_model(source, quantize=kind, trainable_adapter=True)
    assert not any(weight.requires_grad for weight in base.parameters())
    wrapped = peft.get_peft_model(base, peft.LoraConfig(task_type="CAUSAL_LM", init_lora_weights=False))
    wrapped.save_pretrained(tmp_path / "a", save_embedding_layers=False)
    again = load_model(ModelSource(base=source.base, adapter=tmp_path / "a"), quantize=kind, trainable_adapter=True)
    assert all(("lora_" in name) == weight.requires_grad for name, weight in again.named_parameters())
    assert torch.equal(again(IDS).logits, wrapped.eval()(IDS).logits)


def test_all_weights_of_a_quantised_model_cannot_be_trained(source, tmp_path):
    with pytest.raises(UserError) as caught:
        check_trainable("nf4", source)
    assert str(caught.value) == (
        "the weights of a model that is loaded as nf4 cannot be trained, only an adapter beside them\n"
        "  leave lora out of the config to train an adapter, or set quantize=none"
    )
    check_trainable("none", source)
    check_trainable("nf4", ModelSource(base=source.base, adapter=tmp_path))


def test_bitsandbytes_does_not_fill_the_log(source, caplog):
    load_model(source, quantize="int8")(IDS)
    assert not [record for record in caplog.records if record.name.startswith("bitsandbytes")]


def test_a_gguf_file_and_a_missing_library_are_clear_errors(source, monkeypatch):
    with pytest.raises(UserError, match=r"m\.gguf: the weights of a \.gguf file cannot be loaded as nf4\n  write it"):
        load_model(ModelSource(base="/x", gguf_file="m.gguf"), quantize="nf4")
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(UserError) as caught:
        load_model(source, quantize="int8")
    assert str(caught.value) == "the library 'bitsandbytes' is not installed\n  pip install 'clew[quantize]'"
