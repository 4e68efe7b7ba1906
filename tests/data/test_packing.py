from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.data import packing
from clew.data.packing import IGNORED, Batch, Windows, pack

EOS = 99
documents = st.lists(st.lists(st.integers(0, 90), max_size=12), max_size=12)


@given(documents=documents)
def test_each_document_is_followed_by_eos(documents):
    tokens = pack(documents, eos=EOS, vocab_size=100)
    assert tokens.tolist() == [token for document in documents if document for token in [*document, EOS]]


def test_chunks_of_documents_are_joined(monkeypatch):
    many = [[number % 90] * 3 for number in range(50)]
    whole = pack(many, eos=EOS, vocab_size=100)
    monkeypatch.setattr(packing, "_CHUNK_TOKENS", 7)
    assert np.array_equal(pack(many, eos=EOS, vocab_size=100), whole)


def test_a_token_takes_two_bytes_where_the_vocabulary_allows():
    assert pack([[65535]], eos=0, vocab_size=65536).dtype == np.uint16
    assert pack([[65536]], eos=0, vocab_size=65537).tolist() == [65536, 0]


def test_documents_are_read_only_as_far_as_they_are_needed():
    def endless():
        while True:
            yield [1, 2, 3]

    assert pack(endless(), eos=EOS, vocab_size=100, max_tokens=10).tolist() == [1, 2, 3, EOS, 1, 2, 3, EOS, 1, 2]


def windows(num_tokens: int, seq_len: int) -> Windows:
    return Windows(np.arange(num_tokens, dtype=np.uint16), seq_len)


@given(num_tokens=st.integers(2, 200), seq_len=st.integers(2, 20))
def test_every_token_but_the_first_is_a_target_exactly_once(num_tokens, seq_len):
    samples = windows(num_tokens, seq_len)
    batch = samples.batch(np.arange(len(samples)))
    assert batch.inputs.shape == batch.targets.shape == (len(samples), seq_len)
    assert batch.targets[batch.targets != IGNORED].tolist() == list(range(1, num_tokens))
    assert batch.num_targets == num_tokens - 1


@given(num_tokens=st.integers(2, 200), seq_len=st.integers(2, 20))
def test_a_target_is_the_token_after_its_input(num_tokens, seq_len):
    samples = windows(num_tokens, seq_len)
    batch = samples.batch(np.arange(len(samples)))
    real = batch.targets != IGNORED
    assert (batch.targets[real] == batch.inputs[real] + 1).all()


def test_a_batch_holds_the_samples_in_the_order_asked_for():
    samples = windows(100, 10)
    together = samples.batch(np.array([7, 2, 2]))
    alone = [samples.batch(np.array([number])) for number in (7, 2, 2)]
    assert np.array_equal(together.inputs, np.concatenate([batch.inputs for batch in alone]))
    assert np.array_equal(together.targets, np.concatenate([batch.targets for batch in alone]))


def test_the_last_window_is_filled_up_without_targets():
    batch = windows(6, 4).batch(np.array([1]))
    assert batch.inputs.tolist() == [[4, 5, 5, 5]]
    assert batch.targets.tolist() == [[5, IGNORED, IGNORED, IGNORED]]


def test_batches_are_ready_for_the_device():
    batch = windows(50, 8).batch(np.array([1, 0]))
    for array in (batch.inputs, batch.targets):
        assert array.dtype == np.int64
        assert array.flags.c_contiguous


def test_the_digest_tells_tokens_dtypes_and_lengths_apart():
    tokens = np.array([1, 2, 3, 4], dtype=np.uint16)
    others = [
        Windows(tokens, 3),
        Windows(tokens[::-1], 2),
        Windows(tokens.view(np.uint32), 2),
        Windows(tokens.astype(np.uint32), 2),
    ]
    digests = {samples.digest for samples in [Windows(tokens, 2), *others]}
    assert len(digests) == 5
    assert Windows(tokens.copy(), 2).digest == Windows(tokens, 2).digest


def test_fewer_than_two_tokens_make_no_window():
    with pytest.raises(ValueError, match="at least two tokens"):
        windows(1, 4)


def test_ignored_targets_are_not_counted():
    batch = Batch(inputs=np.zeros((1, 3), np.int64), targets=np.array([[5, IGNORED, 0]]))
    assert batch.num_targets == 2
