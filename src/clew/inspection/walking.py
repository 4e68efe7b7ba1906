"""Goes through a split, batch after batch: seen by others, to be given up at any time, in bounded memory."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from clew.errors import UserError
from clew.inspection.samples import Scorer, Scores

if TYPE_CHECKING:
    from clew.inspection.samples import Floats, Ids

Points = npt.NDArray[np.floating[Any]]
Chunks = Callable[[], Iterator[Points]]
"""Gives the rows of a matrix in their order, some at a time, as often as it is called."""
Tell = Callable[[int, int, str], None]
CHUNK = 4096


class Walk:
    """What somebody outside has to say about something long, and wants to know of it.

    Args:
        progress: Is told ``(done, total, what)`` after each batch; it may not want to pass on all of that.
        cancelled: Says whether to give up.
    """

    def __init__(self, progress: Tell | None = None, cancelled: Callable[[], bool] | None = None) -> None:
        self._progress = progress
        self._cancelled = cancelled

    def check(self) -> None:
        """Raise UserError when it is to be given up."""
        if self._cancelled is not None and self._cancelled():
            raise UserError("cancelled")

    def tell(self, done: int, total: int, what: str = "samples") -> None:
        """Say how far it is."""
        if self._progress is not None:
            self._progress(done, total, what)

    def batches(self, start: int, stop: int, size: int) -> Iterator[Ids]:
        """Yield the numbers from ``start`` up to ``stop``, so many at a time, as int64; look up before each batch."""
        for first in range(start, stop, size):
            self.check()
            yield np.arange(first, min(first + size, stop), dtype=np.int64)


@dataclass(frozen=True)
class Known:
    """The scores of a split, as far as they were asked for.

    Attributes:
        size: Number of samples.
        loss: [n] float64, NaN where there is none.
        margin: [n] float64, NaN where there is none.
        embedding: Rows [n, D] float32, in a file; None when it was not asked for.
    """

    size: int
    loss: Floats | None = None
    margin: Floats | None = None
    embedding: npt.NDArray[np.float32] | None = None


@contextmanager
def score_all(scorer: Scorer, needs: frozenset[str], walk: Walk) -> Iterator[Known]:
    """Score a whole split once; embeddings lie in a file that goes when the body ends.

    Args:
        scorer: Looks at the samples.
        needs: Some of ``loss``, ``margin``, ``embedding``; nothing is scored without any.
        walk: Is told how far it is.

    Raises:
        UserError: If the trainer does not give what is needed, or it was cancelled.
    """
    size = len(scorer)
    wanted = needs & {"loss", "margin", "embedding"}
    if not wanted or not size:
        yield Known(size)
        return
    loss = np.full(size, np.nan)
    margin = np.full(size, np.nan) if "margin" in wanted else None
    embedding: npt.NDArray[np.float32] | None = None
    with ExitStack() as stack:
        for ids in walk.batches(0, size, scorer.batch_size):
            scores = scorer.score(ids)
            loss[ids] = scores.loss
            if margin is not None:
                margin[ids] = given(scores, "margin")
            if "embedding" in wanted:
                rows = given(scores, "embedding")
                if embedding is None:
                    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="clew-"))
                    shape = (size, rows.shape[1])
                    embedding = np.memmap(Path(folder) / "embeddings", np.float32, "w+", shape=shape)
                embedding[ids] = rows
            walk.tell(int(ids[-1]) + 1, size)
        yield Known(size, loss, margin, embedding)


def given(scores: Scores, name: str) -> npt.NDArray[Any]:
    """Return the margin or the embedding of some scores; UserError where the trainer does not give it."""
    found: npt.NDArray[Any] | None = scores.margin if name == "margin" else scores.embedding
    if found is None:
        raise UserError(f"this trainer gives no {name} of its samples")
    return found


def chunks_of(rows: npt.NDArray[Any]) -> Chunks:
    """Return what gives the rows of a matrix, or the numbers of a vector as rows of one, some at a time."""

    def read() -> Iterator[Points]:
        for start in range(0, len(rows), CHUNK):
            part = np.asarray(rows[start : start + CHUNK])
            yield part if part.ndim == 2 else part[:, None]

    return read


def finite_rows(chunks: Chunks) -> npt.NDArray[np.bool_]:
    """Return which rows hold only finite numbers, as [n] bool."""
    found = [np.isfinite(part).all(axis=1) for part in chunks()]
    return np.concatenate(found) if found else np.zeros(0, dtype=bool)
