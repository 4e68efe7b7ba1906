"""Tokenizers for models from scratch; all of them end as a `PreTrainedTokenizerFast` with an eos and a pad token."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Annotated, Any, Literal

from pydantic import Field

from clew.config import InputPath, config

EOS = "<|endoftext|>"
PAD = "<|pad|>"
NUM_BYTES = 256


@config
class ByteTokenizer:
    """One token a byte: nothing to train, nothing unknown. A byte's id is its value."""

    type: Literal["byte"] = "byte"

    def build(self, documents: Iterable[str]) -> Any:
        """Return the tokenizer; `documents` are not read."""
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers

        vocabulary = {character: byte for byte, character in enumerate(byte_alphabet())}
        core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
        core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        core.decoder = decoders.ByteLevel()
        return _finish(core)


@config
class BpeTokenizer:
    """Byte-pair encoding over bytes, trained on the task's documents (Sennrich et al. 2016, arXiv:1508.07909)."""

    type: Literal["bpe"] = "bpe"
    vocab_size: Annotated[int, Field(ge=NUM_BYTES + 2)] = 4096
    """Number of tokens with the 256 bytes, eos and pad; fewer come out of documents with fewer pairs."""
    split_digits: bool = True
    """Whether each digit is a token of its own, which makes arithmetic learnable."""
    max_documents: Annotated[int, Field(ge=1)] | None = None
    """Train on this many documents, the first ones; null means all."""

    def build(self, documents: Iterable[str]) -> Any:
        """Train the tokenizer; the same documents give the same tokenizer."""
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

        core = Tokenizer(models.BPE())
        digits = [pre_tokenizers.Digits(individual_digits=True)] if self.split_digits else []
        steps: list[Any] = [*digits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
        core.pre_tokenizer = pre_tokenizers.Sequence(steps)
        core.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocab_size - 2, initial_alphabet=byte_alphabet(), show_progress=False
        )
        core.train_from_iterator(islice(documents, self.max_documents), trainer)
        return _finish(core)


@config
class HuggingFaceTokenizer:
    """A tokenizer that exists already."""

    type: Literal["huggingface"] = "huggingface"
    path: InputPath
    """Folder with the tokenizer's files."""

    def build(self, documents: Iterable[str]) -> Any:
        """Load the tokenizer; `documents` are not read. A missing eos or pad token is added."""
        from transformers import AutoTokenizer

        return _with_specials(AutoTokenizer.from_pretrained(self.path, trust_remote_code=False))


TokenizerConfig = ByteTokenizer | BpeTokenizer | HuggingFaceTokenizer


def byte_alphabet() -> list[str]:
    """Return the printable character that stands for each byte, in byte order.

    GPT-2's table: printable Latin-1 characters stand for themselves, and the other bytes, in order, for U+0100 onward.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    stand_ins = iter(range(NUM_BYTES, 2 * NUM_BYTES))
    return [chr(byte if byte in printable else next(stand_ins)) for byte in range(NUM_BYTES)]


def vocab_size(tokenizer: Any) -> int:
    """Return the rows that an embedding table needs: the highest id and one, because some vocabularies have holes."""
    return int(max(tokenizer.get_vocab().values())) + 1


def encode_all(tokenizer: Any, documents: Iterable[str], *, batch_size: int = 1024) -> Iterator[list[int]]:
    """Yield each document's token ids, without special tokens around them; lazily, a batch of documents at a time."""
    remaining = iter(documents)
    while batch := list(islice(remaining, batch_size)):
        for encoding in tokenizer.backend_tokenizer.encode_batch_fast(batch, add_special_tokens=False):
            yield encoding.ids


def _finish(core: Any) -> Any:
    from transformers import PreTrainedTokenizerFast

    # Decoding must give back exactly what was encoded, so nothing is cleaned up.
    return _with_specials(PreTrainedTokenizerFast(tokenizer_object=core, clean_up_tokenization_spaces=False))


def _with_specials(tokenizer: Any) -> Any:
    """Make sure of eos and pad as two tokens: where pad is eos, a trainer that masks padding never learns to stop."""
    if tokenizer.eos_token is None:
        tokenizer.add_special_tokens({"eos_token": EOS})
    if tokenizer.pad_token is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        tokenizer.add_special_tokens({"pad_token": PAD})
    return tokenizer
