from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from clew.models.tokenizers import (
    EOS,
    BpeTokenizer,
    ByteTokenizer,
    HuggingFaceTokenizer,
    byte_alphabet,
    encode_all,
    vocab_size,
)

DOCUMENTS = ["the cat sat on the mat", "the hat that the cat had", "12+34=46", "naïve Ünïcödé"] * 20
BYTE = ByteTokenizer().build([])
BPE = BpeTokenizer(vocab_size=300).build(DOCUMENTS)


def test_the_byte_alphabet_is_one_character_a_byte():
    alphabet = byte_alphabet()
    assert len(set(alphabet)) == len(alphabet) == 256
    assert alphabet[ord("A")] == "A"
    assert not any(character.isspace() for character in alphabet)


@given(text=st.text())
def test_a_byte_tokens_id_is_its_byte(text):
    assert next(encode_all(BYTE, [text])) == list(text.encode())


@pytest.mark.parametrize("tokenizer", [BYTE, BPE], ids=["byte", "bpe"])
@settings(deadline=None)
@given(text=st.text())
def test_decoding_gives_back_what_was_encoded(tokenizer, text):
    assert tokenizer.decode(next(encode_all(tokenizer, [text]))) == text


@pytest.mark.parametrize("tokenizer", [BYTE, BPE], ids=["byte", "bpe"])
def test_eos_and_pad_are_two_tokens_beyond_the_text(tokenizer):
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    assert tokenizer.eos_token == EOS
    assert tokenizer.eos_token_id != tokenizer.pad_token_id
    assert {tokenizer.eos_token_id, tokenizer.pad_token_id} == {vocab_size(tokenizer) - 2, vocab_size(tokenizer) - 1}


def test_bpe_learns_pairs_up_to_its_size():
    assert 258 < vocab_size(BPE) <= 300
    assert len(BPE("the cat")["input_ids"]) < len("the cat")


def test_the_same_documents_train_the_same_bpe_tokenizer():
    again = BpeTokenizer(vocab_size=300).build(DOCUMENTS)
    assert again.backend_tokenizer.to_str() == BPE.backend_tokenizer.to_str()


def test_bpe_reads_no_more_documents_than_it_may():
    def documents():
        yield "the cat"
        raise AssertionError("a second document was read")

    BpeTokenizer(vocab_size=300, max_documents=1).build(documents())


def test_split_digits_keeps_each_digit_a_token():
    numbers = ["1234 1234 1234"] * 50
    split = BpeTokenizer(vocab_size=400).build(numbers)
    joined = BpeTokenizer(vocab_size=400, split_digits=False).build(numbers)
    assert len(split("1234")["input_ids"]) == 4
    assert len(joined("1234")["input_ids"]) == 1


@pytest.mark.parametrize("tokenizer", [BYTE, BPE], ids=["byte", "bpe"])
def test_a_saved_tokenizer_is_the_same_when_loaded(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    for loaded in (AutoTokenizer.from_pretrained(tmp_path), HuggingFaceTokenizer(path=str(tmp_path)).build([])):
        assert [*encode_all(loaded, DOCUMENTS[:4])] == [*encode_all(tokenizer, DOCUMENTS[:4])]
        assert (loaded.eos_token_id, loaded.pad_token_id) == (tokenizer.eos_token_id, tokenizer.pad_token_id)


def test_a_tokenizer_that_pads_with_eos_gets_a_pad_token_of_its_own(tmp_path):
    ByteTokenizer().build([]).save_pretrained(tmp_path / "a")
    shared = AutoTokenizer.from_pretrained(tmp_path / "a")
    shared.pad_token = shared.eos_token
    shared.save_pretrained(tmp_path / "b")
    loaded = HuggingFaceTokenizer(path=str(tmp_path / "b")).build([])
    assert loaded.pad_token_id != loaded.eos_token_id


def test_documents_are_encoded_in_order_and_lazily():
    def documents():
        yield from ("a", "b", "c")
        raise AssertionError("read too far")

    encoded = encode_all(BYTE, documents(), batch_size=2)
    assert [next(encoded), next(encoded)] == [[97], [98]]
