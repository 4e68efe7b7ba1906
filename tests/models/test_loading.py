from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from clew.errors import UserError
from clew.models.loading import load_model, load_tokenizer
from clew.models.source import ModelSource, resolve
from clew.models.tokenizers import ByteTokenizer

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")

IDS = torch.tensor([[72, 101, 108]])


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    tokenizer = ByteTokenizer().build([])
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "m")
    tokenizer.save_pretrained(tmp_path / "m")
    return tmp_path / "m"


@pytest.fixture
def adapter(folder, tmp_path):
    import peft

    config = peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], init_lora_weights=False)
    wrapped = peft.get_peft_model(load_model(ModelSource(base=str(folder))), config)
    wrapped.save_pretrained(tmp_path / "a")
    return tmp_path / "a", wrapped(IDS).logits


@pytest.mark.parametrize(("dtype", "kind"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_a_folder_loads_in_the_dtype_that_was_asked_for(dtype, kind, folder):
    model = load_model(ModelSource(base=str(folder)), dtype)
    assert {parameter.dtype for parameter in model.parameters()} == {kind}
    assert not model.training


def test_a_tokenizer_loads_with_a_padding_token(folder):
    tokenizer = load_tokenizer(ModelSource(base=str(folder)))
    assert tokenizer("Hel")["input_ids"] == IDS[0].tolist()
    assert tokenizer.pad_token_id is not None


def test_an_adapter_that_was_trained_on_a_folder_finds_it_again(adapter, folder, tmp_path):
    place, logits = adapter
    source = resolve(str(place), tmp_path / "runs")
    assert source.base == str(folder)
    assert torch.equal(load_model(source)(IDS).logits, logits)
    assert not torch.allclose(load_model(ModelSource(base=str(folder)))(IDS).logits, logits)


@pytest.mark.parametrize("trainable", [False, True])
def test_only_the_adapter_is_trainable_and_only_when_asked(trainable, adapter, folder):
    model = load_model(ModelSource(base=str(folder), adapter=adapter[0]), trainable_adapter=trainable)
    names = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert bool(names) == trainable
    assert all("lora_" in name for name in names)


def test_an_adapter_with_a_tokenizer_uses_it(adapter, folder):
    place = adapter[0]
    tokenizer = ByteTokenizer().build([])
    tokenizer.chat_template = "mine"
    tokenizer.save_pretrained(place)
    assert load_tokenizer(ModelSource(base=str(folder), adapter=place)).chat_template == "mine"


def test_a_damaged_folder_is_one_clear_error(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"m: this model cannot be loaded: ") as caught:
        load_model(ModelSource(base=str(folder)))
    assert "\n" not in str(caught.value)


def test_a_hub_id_that_is_neither_cached_nor_reachable_is_one_clear_error(tmp_path):
    code = (
        "from clew.models.loading import load_model, load_tokenizer\n"
        "from clew.models.source import ModelSource\n"
        "for load in (load_model, load_tokenizer):\n"
        "    try: load(ModelSource(base='owner/none'))\n"
        "    except Exception as error: print(type(error).__name__, error, sep=': ')\n"
    )
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout == 2 * (
        "UserError: there is no folder 'owner/none', and no such model in the local cache or on a hub that can be "
        "reached\n  give the path of a model folder or a .gguf file, or download the model first\n"
    )


@pytest.fixture
def gguf(tmp_path):
    """A tiny Llama in a GGUF file, with the names and the shapes that the format uses."""
    import numpy as np
    from gguf import GGUFWriter

    path, width, vocabulary = tmp_path / "tiny.gguf", 32, 40
    writer = GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(4)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(vocabulary)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([f"t{number}" for number in range(vocabulary)])
    writer.add_token_merges([])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    shapes = {"attn_q": (width, width), "attn_k": (width, width), "attn_v": (width, width), "ffn_up": (64, width),
              "attn_output": (width, width), "ffn_gate": (64, width), "ffn_down": (width, 64),
              "attn_norm": (width,), "ffn_norm": (width,)}  # fmt: skip
    named = {f"blk.0.{name}.weight": shape for name, shape in shapes.items()}
    named |= {"token_embd.weight": (vocabulary, width), "output_norm.weight": (width,)}
    generator = np.random.default_rng(0)
    for name, shape in named.items():
        writer.add_tensor(name, generator.standard_normal(shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_gguf_file_becomes_an_ordinary_model(gguf, tmp_path):
    source = resolve(str(gguf), tmp_path / "runs")
    model = load_model(source, "bfloat16")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert "quantization_config" not in model.config.to_dict()
    assert model.lm_head.weight is model.model.embed_tokens.weight
    model.save_pretrained(tmp_path / "saved")
    again = load_model(ModelSource(base=str(tmp_path / "saved")), "bfloat16")
    assert torch.equal(again(IDS % 40).logits, model(IDS % 40).logits)


def test_an_adapter_on_a_gguf_file_names_the_file(gguf, tmp_path):
    import peft

    model = load_model(resolve(str(gguf), tmp_path / "runs"))
    peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"])).save_pretrained(
        tmp_path / "a", save_embedding_layers=False
    )
    source = resolve(str(tmp_path / "a"), tmp_path / "runs")
    assert (source.reference, source.adapter) == (str(gguf), tmp_path / "a")
    load_model(source)
