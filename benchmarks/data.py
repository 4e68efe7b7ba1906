"""Which samples come next, and reading them from token files, against numpy by hand."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from common import Figure, alternate

from clew.data.feed import Feed
from clew.data.loader import Loader
from clew.data.stored import StoredWindows

BATCH, SEQ_LEN, BATCHES = 32, 1024, 200
SHARDS, SHARD_TOKENS = 4, 8 << 20
WORST = (1 << 30) + 1
"""A number of samples just above a power of four: of all positions drawn, most have to be drawn once more."""


def main() -> None:
    """Print rates, and the ratio to numpy."""
    _indices()
    with tempfile.TemporaryDirectory() as folder:
        _reads(Path(folder))


def _indices() -> None:
    feeds = {
        "one source": Feed(WORST, 0, BATCH),
        "a mixture of 3 sources": Feed(WORST, 0, BATCH, shares=((1 << 29, 0.7), (1 << 28, 0.2), ((1 << 28) + 1, 0.1))),
    }
    count = 8000
    for name, feed in feeds.items():

        def draw(feed: Feed = feed) -> None:
            for _ in range(count):
                feed.take()

        seconds = alternate(5, draw)[0]
        promise = {"promise": 1e6, "at_least": True} if name == "one source" else {}
        Figure(
            f"sample numbers, {name}, in batches of {BATCH}", count * BATCH / seconds, "samples/s", **promise
        ).print()
        Figure(f"numbers of one batch of {BATCH}, {name}", seconds / count * 1e6, "µs").print()


def _reads(folder: Path) -> None:
    """Windows of a memory-mapped row in four files, and of the same row in one file as one would cut them by hand."""
    generator = np.random.default_rng(0)
    with (folder / "row.bin").open("wb") as whole:
        for number in range(SHARDS):
            tokens = generator.integers(0, 50_000, SHARD_TOKENS + number, dtype=np.uint16)
            (folder / f"{number}.bin").write_bytes(tokens.tobytes())
            whole.write(tokens.tobytes())
    row = np.memmap(folder / "row.bin", dtype=np.uint16, mode="r")
    pieces = [np.asarray(np.memmap(folder / f"{number}.bin", dtype=np.uint16, mode="r")) for number in range(SHARDS)]
    samples = StoredWindows(pieces, SEQ_LEN, "benchmark")
    batches = [Feed(len(samples) - 1, seed, BATCH).take() for seed in range(BATCHES)]

    def by_hand() -> None:
        for ids in batches:
            starts = (ids * SEQ_LEN).tolist()
            np.stack([row[start : start + SEQ_LEN].astype(np.int64) for start in starts])
            np.stack([row[start + 1 : start + 1 + SEQ_LEN].astype(np.int64) for start in starts])

    def ours() -> None:
        for ids in batches:
            samples.batch(ids)

    numpy_seconds, seconds = alternate(7, by_hand, ours)
    Figure("tokens from token files, against numpy by hand", numpy_seconds / seconds, "x", 0.9, at_least=True).print()
    tokens = BATCH * SEQ_LEN * BATCHES
    Figure("tokens from token files, in the cache of the system", tokens / seconds, "tokens/s").print()
    for workers in (0, 1, 2):
        loader = Loader(samples.batch, Feed(len(samples), 0, BATCH), workers=workers)
        taken = alternate(5, lambda loader=loader: [loader.take() for _ in range(BATCHES)])[0]
        loader.close()
        Figure(f"the same through a loader with {workers} threads", tokens / taken, "tokens/s").print()


if __name__ == "__main__":
    main()
