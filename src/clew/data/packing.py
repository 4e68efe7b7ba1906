"""Documents to samples of equal length: one long row of tokens, cut into windows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt

from clew.data.order import Ids

IGNORED = -100
"""A target that is no target: it adds nothing to loss or gradient."""

Tokens = npt.NDArray[np.uint16 | np.uint32]
"""Token ids in a row; two bytes each where the vocabulary allows."""

_CHUNK_TOKENS = 1 << 20


@dataclass(frozen=True)
class Batch:
    """Token ids [B, T] int64, and for each position the token that follows, or `IGNORED`."""

    inputs: Ids
    targets: Ids

    @property
    def num_targets(self) -> int:
        """How many tokens the loss is a mean over."""
        return int((self.targets != IGNORED).sum())


class Samples(Protocol):
    """A data set that hands out batches by sample id."""

    def __len__(self) -> int:
        """Return the number of samples."""
        ...

    def batch(self, ids: Ids) -> Batch:
        """Return the samples of these ids [B], in this order."""
        ...

    @property
    def digest(self) -> str:
        """Tell this data set from any other."""
        ...


def pack(documents: Iterable[Sequence[int]], *, eos: int, vocab_size: int, max_tokens: int | None = None) -> Tokens:
    """Join tokenized documents into one row, each followed by eos.

    Args:
        documents: Token ids of each; empty ones are left out.
        eos: Id of the end token.
        vocab_size: Decides the dtype: two bytes a token where they suffice.
        max_tokens: Cut the row here, and read no further documents.

    Returns:
        [N] uint16 or uint32.
    """
    dtype: type[np.uint16 | np.uint32] = np.uint16 if vocab_size <= 1 << 16 else np.uint32
    chunks: list[Tokens] = []
    pending: list[int] = []
    total = 0
    for document in documents:
        if document:
            pending.extend(document)
            pending.append(eos)
            total += len(document) + 1
        # Python's integers take 32 bytes each and more, so they are not kept for long.
        if len(pending) >= _CHUNK_TOKENS:
            chunks.append(np.array(pending, dtype=dtype))
            pending.clear()
        if max_tokens is not None and total >= max_tokens:
            break
    chunks.append(np.array(pending, dtype=dtype))
    return np.concatenate(chunks)[:max_tokens]


@dataclass(frozen=True)
class Windows:
    """Samples of `seq_len` positions over one row of tokens.

    Neighbours overlap by one token, so that every token but the row's first is a target exactly once. The last window
    is as long as the others: where the row has ended, inputs repeat its last token, and targets are ignored.

    Args:
        tokens: [N], at least two.
        seq_len: Positions in a sample.
    """

    tokens: Tokens
    seq_len: int

    def __post_init__(self) -> None:
        if len(self.tokens) < 2:
            raise ValueError("windows need at least two tokens")

    def __len__(self) -> int:
        return -(-(len(self.tokens) - 1) // self.seq_len)

    def batch(self, ids: Ids) -> Batch:
        """Return the windows of these ids [B] as inputs and targets [B, seq_len]."""
        places = ids[:, None] * self.seq_len + np.arange(self.seq_len + 1)
        last = len(self.tokens) - 1
        rows = self.tokens[np.minimum(places, last)].astype(np.int64)
        targets = np.where(places[:, 1:] <= last, rows[:, 1:], IGNORED)
        return Batch(inputs=np.ascontiguousarray(rows[:, :-1]), targets=targets)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the tokens and the window length."""
        content = hashlib.sha256(np.ascontiguousarray(self.tokens).view(np.uint8).data)
        content.update(f"{self.tokens.dtype} {self.seq_len}".encode())
        return content.hexdigest()
