"""What is written as GGUF is read back by Transformers, which has a reader of its own, as the same model."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from clew.errors import UserError
from clew.models.gguf_export import save_gguf
from clew.models.loading import load_model, load_tokenizer
from clew.models.source import ModelSource
from clew.models.tokenizers import BpeTokenizer, ByteTokenizer

TEXTS = ["The quick brown fox, jumps: 12+34=46!", " héllo\n\n\tword's  end ", "a<|endoftext|>b<think>c"]
CHAT = "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}{{ eos_token }}{% endfor %}"
SIZES = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "max_position_embeddings": 128, "initializer_range": 0.2}  # fmt: skip
ROWS = 320  # more than there are tokens, as with most pretrained models
KINDS = {
    "llama": (LlamaForCausalLM, LlamaConfig, {"tie_word_embeddings": True}),
    "llama-untied": (LlamaForCausalLM, LlamaConfig, {"tie_word_embeddings": False, "head_dim": 32}),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config, {"tie_word_embeddings": False}),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config, {"tie_word_embeddings": True, "head_dim": 128}),
}


@pytest.fixture(scope="module")
def tokenizer():
    made = BpeTokenizer(vocab_size=300).build(["The quick brown fox jumps over the lazy dog, and the word's end."] * 9)
    made.add_tokens(["<think>"])
    made.chat_template = CHAT
    return made


def make(kind):
    torch.manual_seed(0)
    model, config, options = KINDS[kind]
    made = model(config(vocab_size=ROWS, bos_token_id=None, **SIZES, **options)).eval()
    for name, parameter in made.named_parameters():
        if parameter.dim() == 1:  # biases and norms are constants at first, and would hide a mistake
            parameter.data.add_(torch.randn_like(parameter) * 0.1)
        assert parameter.requires_grad, name
    return made


def written(model, tokenizer, folder, kind="float32"):
    save_gguf(model, tokenizer, folder / "m.gguf", kind)
    return ModelSource(base=str(folder), gguf_file="m.gguf")


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_logits_come_back(kind, tokenizer, tmp_path):
    model = make(kind)
    again = load_model(written(model, tokenizer, tmp_path))
    tokens = torch.arange(40)[None]
    with torch.no_grad():
        assert torch.allclose(again(tokens).logits, model(tokens).logits, atol=1e-5, rtol=1e-5)
    assert (again.lm_head.weight is again.model.embed_tokens.weight) == model.config.tie_word_embeddings
    assert again.config.max_position_embeddings == 128


@pytest.mark.parametrize(("kind", "step"), [("float16", 2**-10), ("bfloat16", 2**-7), ("q8_0", 1 / 127)])
def test_matrices_are_rounded_to_the_type_and_vectors_are_not(kind, step, tokenizer, tmp_path):
    model = make("llama")
    again = load_model(written(model, tokenizer, tmp_path, kind)).state_dict()
    for name, tensor in model.state_dict().items():
        if tensor.dim() == 1:
            assert torch.equal(again[name], tensor), name
        else:
            error = (again[name] - tensor).abs().max() / tensor.abs().max()
            assert 0 < error <= step, name
    smaller = (tmp_path / "m.gguf").stat().st_size / sum(one.nbytes for one in set(model.parameters()))
    assert smaller < {"float16": 0.62, "bfloat16": 0.62, "q8_0": 0.42}[kind]


@pytest.mark.parametrize("merges", [True, False])
def test_the_same_tokens_chat_and_special_ids_come_back(tokenizer, tmp_path, merges):
    if not merges:
        tokenizer = ByteTokenizer().build([])
        tokenizer.chat_template = CHAT
    again = load_tokenizer(written(make("llama"), tokenizer, tmp_path))
    for text in TEXTS:
        ids = tokenizer(text)["input_ids"]
        assert again(text)["input_ids"] == ids
        assert again.decode(ids) == text
    assert again.get_vocab() | tokenizer.get_vocab() == again.get_vocab()
    assert (again.eos_token_id, again.pad_token_id) == (tokenizer.eos_token_id, tokenizer.pad_token_id)
    messages = [{"role": "user", "content": "The fox"}]
    assert again.apply_chat_template(messages, tokenize=False) == tokenizer.apply_chat_template(
        messages, tokenize=False
    )


def test_a_file_that_is_read_can_be_written_again(tokenizer, tmp_path):
    (tmp_path / "again").mkdir()
    first = written(make("llama"), tokenizer, tmp_path)
    second = written(load_model(first), load_tokenizer(first), tmp_path / "again")
    ours, theirs = load_model(first).state_dict(), load_model(second).state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def refused(model, tokenizer, tmp_path):
    with pytest.raises(UserError) as caught:
        save_gguf(model, tokenizer, tmp_path / "m.gguf", "float32")
    assert not (tmp_path / "m.gguf").exists()
    return str(caught.value)


def test_models_that_the_file_could_not_describe_are_refused(tokenizer, tmp_path):
    other = GPT2LMHeadModel(GPT2Config(vocab_size=ROWS, n_embd=32, n_layer=1, n_head=2))
    assert refused(other, tokenizer, tmp_path) == (
        "a 'gpt2' model cannot be written as GGUF here, only llama, qwen2, qwen3\n"
        "  export a Hugging Face folder, and use the converter of llama.cpp"
    )
    model = make("llama")
    model.config.rope_parameters = {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}
    assert refused(model, tokenizer, tmp_path) == "this model's rope_type cannot be written as GGUF here"
    model = make("llama")
    model.config.vocab_size = 10
    assert "the tokenizer has ids up to " in refused(model, tokenizer, tmp_path)


def test_tokenizers_that_have_no_form_are_refused(tokenizer, tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({"a": 0, "<unk>": 1}, unk_token="<unk>"))
    assert refused(make("llama"), PreTrainedTokenizerFast(tokenizer_object=words), tmp_path) == (
        "only byte-level BPE tokenizers can be written to GGUF\n"
        "  export a Hugging Face folder, and convert it with the tools of the program that is to read it"
    )
    tokenizer.save_pretrained(tmp_path / "t")
    changed = AutoTokenizer.from_pretrained(tmp_path / "t")
    changed.backend_tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    assert refused(make("llama"), changed, tmp_path).startswith("GGUF has no name for how this tokenizer splits text\n")
