from __future__ import annotations

from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

TEMPLATE = (
    "{% for m in messages %}<s>{{ m['role'] }}:{{ m['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant:{% endif %}"
)


def byte_tokenizer(chat_template: str | None = None, template: str = "$A", **special: Any) -> PreTrainedTokenizerFast:
    """One token a byte, with the tokens <s> and </s> besides."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<s>": 0, "</s>": 1, **{piece: number for number, piece in enumerate(alphabet, start=2)}}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=[("<s>", 0), ("</s>", 1)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **{"bos_token": "<s>", "eos_token": "</s>", **special})
    fast.chat_template = chat_template
    return fast


@pytest.fixture
def plain_tokenizer():
    return byte_tokenizer()


@pytest.fixture
def chat_tokenizer():
    return byte_tokenizer(TEMPLATE, template="<s> $A")


@pytest.fixture
def framing_tokenizer():
    """A tokenizer that puts <s> before a text and </s> behind it."""
    return byte_tokenizer(template="<s> $A </s>")
