"""Samples that are cut out of long rows when they are asked for, and data sets joined of several."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from clew.data.order import Ids
from clew.data.packing import IGNORED, Batch, Samples, Tokens


class StoredWindows:
    """Samples of `seq_len` positions over one row of tokens that lies in several pieces, such as memory-mapped files.

    They are those of :class:`clew.data.packing.Windows` over the pieces in a row. Nothing is read before it is asked
    for, and where the pieces end nothing of it shows.

    Args:
        pieces: The row.
        seq_len: Positions in a sample.
        digest: What tells this row from any other.
        max_tokens: Cut the row here; None takes all of it.
    """

    def __init__(self, pieces: Sequence[Tokens], seq_len: int, digest: str, *, max_tokens: int | None = None) -> None:
        self.seq_len = seq_len
        self._pieces = [piece for piece in pieces if len(piece)]
        self._starts = np.cumsum([0, *(len(piece) for piece in self._pieces)])
        self.num_tokens = min(int(self._starts[-1]), max_tokens or int(self._starts[-1]))
        if self.num_tokens < 2:
            raise ValueError("windows need at least two tokens")
        self.digest = hashlib.sha256(f"{digest} {self.num_tokens} {seq_len}".encode()).hexdigest()
        self._whole = [self._whole_windows(number) for number in range(len(self._pieces))]

    def __len__(self) -> int:
        return -(-(self.num_tokens - 1) // self.seq_len)

    def batch(self, ids: Ids) -> Batch:
        """Return the windows of these ids [B] as inputs and targets [B, seq_len]."""
        rows = np.empty((len(ids), self.seq_len + 1), dtype=np.int64)
        left = np.ones(len(ids), dtype=np.bool_)
        for number in np.unique(np.searchsorted(self._starts, ids * self.seq_len, side="right") - 1):
            first, windows = self._whole[number]
            here = (ids >= first) & (ids < first + len(windows))
            rows[here] = windows[ids[here] - first]
            left &= ~here
        # Copies also of a single row, whose inputs and targets would else share their memory.
        inputs, targets = rows[:, :-1].copy(), rows[:, 1:].copy()
        for place in np.flatnonzero(left):
            inputs[place], targets[place] = self._across(int(ids[place]))
        return Batch(inputs=inputs, targets=targets)

    def _whole_windows(self, number: int) -> tuple[int, Tokens]:
        """The first window that lies in a piece as a whole, and all such windows of it as one view [n, seq_len + 1]."""
        piece, start, size = self._pieces[number], int(self._starts[number]), self.seq_len + 1
        first = -(-start // self.seq_len)
        part = piece[first * self.seq_len - start : max(0, self.num_tokens - start)]
        if len(part) < size:
            return first, np.empty((0, size), dtype=piece.dtype)
        return first, np.lib.stride_tricks.sliding_window_view(part, size)[:: self.seq_len]

    def _across(self, number: int) -> tuple[Ids, Ids]:
        """A window that begins in one piece and ends in another, or after the row's end."""
        start = number * self.seq_len
        end = min(start + self.seq_len + 1, self.num_tokens)
        found = np.empty(self.seq_len + 1, dtype=np.int64)
        piece, at = int(np.searchsorted(self._starts, start, side="right")) - 1, start
        while at < end:
            upto = min(end, int(self._starts[piece + 1]))
            offset = int(self._starts[piece])
            found[at - start : upto - start] = self._pieces[piece][at - offset : upto - offset]
            piece, at = piece + 1, upto
        targets = found[1:].copy()
        targets[end - start - 1 :] = IGNORED
        found[end - start :] = found[end - start - 1]
        return found[:-1], targets


class Joined:
    """Several data sets as one: the samples of each are numbered after those of the ones before it.

    Args:
        parts: At least one; all with samples of the same length.
    """

    def __init__(self, parts: Sequence[Samples]) -> None:
        self.parts = parts
        self._starts = np.cumsum([0, *(len(part) for part in parts)])
        self.digest = hashlib.sha256(" ".join(part.digest for part in parts).encode()).hexdigest()

    def __len__(self) -> int:
        return int(self._starts[-1])

    def batch(self, ids: Ids) -> Batch:
        """Return the samples of these ids [B], in this order."""
        numbers = np.searchsorted(self._starts, ids, side="right") - 1
        present = np.unique(numbers)
        if len(present) == 1:
            only = int(present[0])
            return self.parts[only].batch(ids - self._starts[only])
        places = [np.flatnonzero(numbers == number) for number in present]
        found = [
            self.parts[number].batch(ids[here] - self._starts[number])
            for number, here in zip(present.tolist(), places, strict=True)
        ]
        back = np.argsort(np.concatenate(places))
        return Batch(
            inputs=np.concatenate([batch.inputs for batch in found])[back],
            targets=np.concatenate([batch.targets for batch in found])[back],
        )


class Interleaved:
    """Several data sets as one, each spread evenly over it: of every first so many samples, each has its share.

    Args:
        parts: At least one; all with samples of the same length.
    """

    def __init__(self, parts: Sequence[Samples]) -> None:
        self._joined = Joined(parts)
        places: list[npt.NDArray[np.float64]] = [(np.arange(len(part)) + 0.5) / len(part) for part in parts]
        self._order = np.argsort(np.concatenate(places), kind="stable")
        self.digest = hashlib.sha256(f"interleaved {self._joined.digest}".encode()).hexdigest()

    def __len__(self) -> int:
        return len(self._joined)

    def batch(self, ids: Ids) -> Batch:
        """Return the samples of these ids [B], in this order."""
        return self._joined.batch(self._order[ids])
