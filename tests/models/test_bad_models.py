"""Models that must not be loaded: of another architecture, with weights or code that could do anything."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from clew.errors import UserError
from clew.models.loading import load_model, load_tokenizer
from clew.models.source import ModelSource, resolve
from clew.models.tokenizers import ByteTokenizer

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")


def llama(width: int = 32) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=300, hidden_size=width, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4)
    )


class Trap:
    """A pickle of this touches a file when it is read."""

    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.fixture
def folder(tmp_path):
    llama().save_pretrained(tmp_path / "m")
    ByteTokenizer().build([]).save_pretrained(tmp_path / "m")
    return tmp_path / "m"


def error_of(folder) -> str:
    with pytest.raises(UserError) as caught:
        load_model(resolve(str(folder), folder.parent / "runs"))
    return str(caught.value)


def test_weights_that_are_a_pickle_are_refused_and_never_read(folder, tmp_path):
    (folder / "model.safetensors").unlink()
    torch.save({"x": Trap(tmp_path / "trapped")}, folder / "pytorch_model.bin")
    assert error_of(folder) == (
        f"{folder}: its weights are a pickle (pytorch_model.bin), which may run any code when it is read; only "
        "safetensors are read\n  if you trust it, load it with Transformers elsewhere and save_pretrained() it"
    )
    with pytest.raises(UserError):  # and where nobody has looked into the folder before, such as in a hub's cache
        load_model(ModelSource(base=str(folder)))
    assert not (tmp_path / "trapped").exists()


def test_good_pickled_weights_are_not_read_either(folder):
    torch.save(llama().state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError):
        load_model(ModelSource(base=str(folder)))


def test_a_pickle_beside_safetensors_is_left_alone(folder, tmp_path):
    torch.save({"x": Trap(tmp_path / "trapped")}, folder / "training_args.bin")
    load_model(resolve(str(folder), tmp_path / "runs"))
    assert not (tmp_path / "trapped").exists()


def test_an_adapter_that_is_a_pickle_is_refused(folder, tmp_path):
    adapter = tmp_path / "a"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(folder)}))
    torch.save({"x": Trap(tmp_path / "trapped")}, adapter / "adapter_model.bin")
    assert "its weights are a pickle (adapter_model.bin)" in error_of(adapter)
    assert not (tmp_path / "trapped").exists()


def test_code_that_comes_with_a_model_is_never_run(folder, tmp_path):
    (folder / "modeling_mine.py").write_text(f"open({str(tmp_path / 'trapped')!r}, 'w')\n")
    mapped = {"AutoConfig": "modeling_mine.Mine", "AutoModelForCausalLM": "modeling_mine.Mine"}
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "mine", "auto_map": mapped}))
    assert error_of(folder).startswith(f"{folder}: this model cannot be loaded: ")
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    own = {"AutoTokenizer": ["modeling_mine.Mine", None]}
    (folder / "tokenizer_config.json").write_text(json.dumps({**tokenizer, "tokenizer_class": "Mine", "auto_map": own}))
    with pytest.raises(UserError):
        load_tokenizer(ModelSource(base=str(folder)))
    assert not (tmp_path / "trapped").exists()


def test_weights_of_another_architecture_are_refused(folder, tmp_path):
    """Transformers would make random weights of it, and say so in a table that nobody reads."""
    other = GPT2LMHeadModel(GPT2Config(vocab_size=300, n_embd=32, n_layer=1, n_head=4))
    other.save_pretrained(tmp_path / "other")
    shutil.copy(tmp_path / "other/model.safetensors", folder)
    assert error_of(folder) == (
        f"{folder}: the weights are not of the model that config.json describes: 12 are missing, such as "
        "lm_head.weight\n  config.json and the weights must be of the same model"
    )


def test_weights_of_another_size_are_refused(folder, tmp_path):
    llama(width=16).save_pretrained(tmp_path / "other")
    shutil.copy(tmp_path / "other/model.safetensors", folder)
    wanted = "this model cannot be loaded: its weights have other shapes than those of the model that they are for"
    assert error_of(folder) == f"{folder}: {wanted}"


def test_an_adapter_of_another_model_is_refused(folder, tmp_path):
    import peft

    config = peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"])
    peft.get_peft_model(llama(width=16), config).save_pretrained(tmp_path / "a")
    said = json.loads((tmp_path / "a/adapter_config.json").read_text())
    (tmp_path / "a/adapter_config.json").write_text(json.dumps({**said, "base_model_name_or_path": str(folder)}))
    assert error_of(tmp_path / "a").endswith("its weights have other shapes than those of the model that they are for")


def test_an_adapter_whose_weights_are_of_another_one_is_refused(folder, tmp_path):
    import peft

    for name, target in (("a", "q_proj"), ("b", "v_proj")):
        config = peft.LoraConfig(task_type="CAUSAL_LM", target_modules=[target])
        peft.get_peft_model(load_model(ModelSource(base=str(folder))), config).save_pretrained(tmp_path / name)
    shutil.copy(tmp_path / "b/adapter_model.safetensors", tmp_path / "a")
    assert error_of(tmp_path / "a").endswith("its weights are not those that adapter_config.json describes")


def test_a_tokenizer_without_a_pad_token_pads_with_its_end(folder):
    tokenizer = ByteTokenizer().build([])
    tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)
    loaded = load_tokenizer(ModelSource(base=str(folder)))
    assert loaded.pad_token == loaded.eos_token
    batch = loaded(["a", "abc"], padding=True)
    assert [sum(mask) for mask in batch["attention_mask"]] == [1, 3]


def test_a_tokenizer_without_pad_and_end_is_refused(folder):
    tokenizer = ByteTokenizer().build([])
    tokenizer.pad_token = tokenizer.eos_token = None
    tokenizer.save_pretrained(folder)
    with pytest.raises(UserError, match="the tokenizer has neither a padding token nor an end token"):
        load_tokenizer(ModelSource(base=str(folder)))
