"""Token files, written: several processes, one result; what a killed one has finished is kept.

Documents are cut into groups by their order and size alone, and each group becomes a shard, so the files are the same
for every number of processes. A shard's own record is written after its files are on the disk. Whoever comes again with
the same input finds the record, compares the hashes, and leaves what is whole as it is.
"""

from __future__ import annotations

import fcntl
import hashlib
import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from clew.config import SAYS_CONTENT
from clew.data.shards import Done, Encoding, Group, make_shard
from clew.data.tokens import FORMAT, META, Shard, TokenFiles, open_tokens
from clew.errors import DataError, RunFailed, UserError
from clew.runs.files import sync_directory, write_atomically, write_json

SHARD_BYTES = 32 << 20
"""Text of a shard, in UTF-8: large enough to be read at full speed, small enough for some of them to be in memory."""


@dataclass(frozen=True)
class Progress:
    """How far it is.

    Attributes:
        documents: In finished shards.
        text_bytes: Of their text, in UTF-8.
        tokens: In finished shards.
        kept: Shards that were there already.
    """

    documents: int = 0
    text_bytes: int = 0
    tokens: int = 0
    kept: int = 0


def write_tokens(
    folder: Path,
    split: str,
    documents: Iterable[tuple[str, str]],
    encoding: Encoding,
    *,
    workers: int = 1,
    shard_bytes: int = SHARD_BYTES,
    progress: Callable[[Progress], None] = lambda progress: None,
) -> TokenFiles:
    """Make the token files of a split, or finish or mend those that are there.

    Args:
        folder: Of all splits; it holds the tokenizer.
        split: Its name.
        documents: ``(place, text)`` in their order; an error names the place. Empty texts are left out.
        encoding: The tokenizer.
        workers: Processes that tokenize; 1 does it in this one.
        shard_bytes: Text of a shard; the same input with another number makes other shards.
        progress: Is told after each shard.

    Raises:
        DataError: If there is no document, or one cannot be written as UTF-8.
        UserError: If somebody else is writing there.
        RunFailed: If a worker is killed; what it had finished is kept.
    """
    place = folder / split
    place.mkdir(parents=True, exist_ok=True)
    with _alone(place):
        done = []
        said = Progress()
        for one in _made(place, _groups(documents, shard_bytes), encoding, workers):
            done.append(one.shard)
            said = Progress(
                said.documents + one.shard.documents,
                said.text_bytes + one.text_bytes,
                said.tokens + one.shard.tokens,
                said.kept + one.kept,
            )
            progress(said)
        if not done:
            raise DataError("there is no text to tokenize", where=split)
        _finish(place, done, encoding)
    found = open_tokens(folder, split)
    assert found is not None, "it has just been written"
    return found


def _groups(documents: Iterable[tuple[str, str]], shard_bytes: int) -> Iterator[Group]:
    """Cut documents into shards by their order and size alone."""
    texts: list[str] = []
    size = number = 0
    for where, text in documents:
        if not text:
            continue
        try:
            size += len(text.encode())
        except UnicodeEncodeError as error:
            what = f"character {error.start + 1} of the text is half of a surrogate pair, which no UTF-8 can hold"
            raise DataError(what, where=where) from None
        texts.append(text)
        if size >= shard_bytes:
            yield Group(number, texts, size)
            texts, size, number = [], 0, number + 1
    if texts:
        yield Group(number, texts, size)


def _made(place: Path, groups: Iterable[Group], encoding: Encoding, workers: int) -> Iterator[Done]:
    """Make shards, in their order."""
    if workers <= 1:
        for group in groups:
            yield make_shard(place, group, encoding)
        return
    # A process that is forked from one with threads may wait forever for a lock that nobody holds any more.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin)
    waiting: deque[Future[Done]] = deque()
    try:
        for group in groups:
            waiting.append(pool.submit(make_shard, place, group, encoding))
            # One group more than there are workers is in memory, so that none of them waits for the reader.
            while len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        hint = "run the same again: finished shards are kept; with fewer workers it needs less memory"
        raise RunFailed("a process that tokenizes was killed", where=str(place), hint=hint) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _begin() -> None:
    # Each process has a core; threads of its own would only be in the way of the others.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def _finish(place: Path, shards: Sequence[Shard], encoding: Encoding) -> None:
    """Say what the split holds, and remove what is not of it: shards of an earlier, longer input."""
    whole = hashlib.sha256(f"{FORMAT} {encoding.fingerprint} {encoding.eos} {encoding.dtype}".encode())
    for shard in shards:
        whole.update(shard.content.encode())
    stems = {shard.stem for shard in shards}
    for path in place.iterdir():
        # What a killed writer has left behind begins with a dot.
        if path.suffix in (".bin", ".idx", ".json", ".tmp") and path.name != META and path.stem not in stems:
            (place / META).unlink(missing_ok=True)
            path.unlink()
    write_atomically(place / SAYS_CONTENT, whole.hexdigest() + "\n")
    write_json(
        place / META,
        {
            "format": FORMAT,
            "dtype": encoding.dtype,
            "tokens": sum(shard.tokens for shard in shards),
            "documents": sum(shard.documents for shard in shards),
            "tokenizer": encoding.fingerprint,
            "eos": encoding.eos,
            "vocab_size": encoding.vocab_size,
            "digest": whole.hexdigest(),
            "shards": [asdict(shard) for shard in shards],
        },
    )
    sync_directory(place.parent)


@contextmanager
def _alone(place: Path) -> Iterator[None]:
    """Keep others from writing there; the kernel forgets a lock with the process that held it."""
    with (place / ".lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError("somebody else is writing these token files", where=str(place)) from None
        yield
