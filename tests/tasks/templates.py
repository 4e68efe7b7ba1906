"""Chat templates of the kinds that are in use, written for these tests, and a tokenizer with their special tokens."""

from __future__ import annotations

from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA = (
    "{{ bos_token }}{% for m in messages %}"
    "{{ '<|start|>' + m['role'] + '<|end|>\n\n' + m['content'] | trim + '<|eot|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant<|end|>\n\n' }}{% endif %}"
)
# The assistant is called model, and there is no system.
GEMMA = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% set role = 'model' if m['role'] == 'assistant' else m['role'] %}"
    "{{ '<turn>' + role + '\n' + m['content'] | trim + '<end>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<turn>model\n' }}{% endif %}"
)
# The prompt alone ends in an empty thought that the whole conversation does not have.
THOUGHT = CHATML.replace("assistant\n' }}{% endif %}", "assistant\n<think></think>' }}{% endif %}")
# The end of an answer stands before the next turn, so that the last one has none.
OPEN_END = (
    "{% for m in messages %}{% if not loop.first %}{{ '<|im_end|>' }}{% endif %}{{ m['role'] + ': ' + m['content'] }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_end|>assistant: ' }}{% endif %}"
)

DROPS_SYSTEM = CHATML.replace("{% for m in messages %}", "{% for m in messages if m['role'] != 'system' %}")
DROPS_HISTORY = CHATML.replace("{% for m in messages %}", "{% for m in messages[-2:] %}")
MERGES_SYSTEM = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ '[user] ' + m['content'] + '\n\n' }}"
    "{% elif m['role'] == 'user' %}"
    "{{ '' if loop.previtem is defined and loop.previtem['role'] == 'system' else '[user] ' }}{{ m['content'] }}"
    "{% else %}{{ '[assistant] ' + m['content'] + eos_token }}{% endif %}{% endfor %}"
)
REPEATS = CHATML.replace("m['content'] +", "m['content'] + m['content'] +")
REVERSES = CHATML.replace("in messages %}", "in messages | reverse %}")
CUTS_THOUGHTS = CHATML.replace("m['content'] +", "m['content'].split('</think>')[-1] +")

SPECIAL = ["<|im_start|>", "<|im_end|>", "<|start|>", "<|end|>", "<|eot|>", "<turn>", "<end>"]


def chat_tokenizer(template: str | None) -> Any:
    """One token a byte, one for each special token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={piece: number for number, piece in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    tokenizer.add_special_tokens({"additional_special_tokens": SPECIAL})
    tokenizer.chat_template = template
    return tokenizer
