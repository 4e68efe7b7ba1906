"""Batches of a feed, read while the one before is still trained on.

Threads do it: cutting windows out of memory-mapped files is copying, during which Python's lock is free, and one thread
reads many times faster than any training takes (``benchmarks/data.py``). What threads gain is the wait for a slow disk.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

import numpy as np

from clew.data.feed import Feed
from clew.data.order import Ids

BatchT = TypeVar("BatchT")


class Loader(Generic[BatchT]):
    """Reads the batches that a feed says come next.

    What is read ahead is a guess: it is used if its samples are those that the feed names when the batch is due, and
    dropped with all that follows it if not. So a selection or another batch size holds from the very next batch on, and
    nobody has to say that something has changed.

    Args:
        read: Returns the samples of these ids [B], or this process's part of them; with workers, in another thread.
        feed: Says which samples come next.
        workers: Threads that read ahead, two batches each; 0 reads a batch when it is due.
    """

    def __init__(self, read: Callable[[Ids], BatchT], feed: Feed, *, workers: int = 0) -> None:
        self._read = read
        self._feed = feed
        self._depth = 2 * workers
        self._threads = ThreadPoolExecutor(workers, "clew-loader") if workers else None
        self._ahead: deque[tuple[Ids, Future[BatchT]]] = deque()

    @property
    def num_ahead(self) -> int:
        """How many batches are read, or being read, that are not due yet."""
        return len(self._ahead)

    def take(self) -> BatchT:
        """Return the batch that comes next, and move on; an error of its reading is raised here.

        A batch that could not be read is passed by: the feed has moved on.
        """
        ids = self._feed.take()
        if self._threads is None:
            return self._read(ids)
        guessed = self._ahead.popleft() if self._ahead else None
        if guessed is None or not np.array_equal(guessed[0], ids):
            self._forget()
            guessed = (ids, self._threads.submit(self._read, ids))
        self._read_ahead(self._threads)
        return guessed[1].result()

    def close(self) -> None:
        """End the threads; what they have read is dropped."""
        self._forget()
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)

    def _read_ahead(self, threads: ThreadPoolExecutor) -> None:
        size = self._feed.batch_size
        while len(self._ahead) < self._depth:
            ids = self._feed.peek(size, ahead=len(self._ahead) * size)
            self._ahead.append((ids, threads.submit(self._read, ids)))

    def _forget(self) -> None:
        for _, future in self._ahead:
            future.cancel()
        self._ahead.clear()
