"""One shard of token files: made of its texts, or kept as it is where it is whole."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clew.config import SAYS_CONTENT
from clew.data.tokens import META, Shard
from clew.runs.files import read_json, sync_directory, write_json

_BATCH = 1024
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Encoding:
    """What a worker has to know to make tokens: everything here can be sent to another process.

    Attributes:
        folder: Where the tokenizer's files are.
        fingerprint: Of the tokenizer.
        eos: The id of the token after each document.
        vocab_size: Decides the dtype: two bytes a token where they suffice.
    """

    folder: Path
    fingerprint: str
    eos: int
    vocab_size: int

    @property
    def dtype(self) -> str:
        """Of the tokens, as numpy names it."""
        return "<u2" if self.vocab_size <= 1 << 16 else "<u4"


@dataclass(frozen=True)
class Group:
    """The documents of one shard."""

    number: int
    texts: Sequence[str]
    text_bytes: int


@dataclass(frozen=True)
class Done:
    """A shard that is on the disk."""

    shard: Shard
    text_bytes: int
    kept: bool


@cache
def load_encoder(encoding: Encoding) -> Any:
    """Return the tokenizer, without the libraries of models around it: a process is ready in no time."""
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(encoding.folder / "tokenizer.json"))


def make_shard(place: Path, group: Group, encoding: Encoding) -> Done:
    """Make one shard, unless it is there, of the same texts and tokenizer, and whole."""
    source = hashlib.sha256()
    for text in group.texts:
        data = text.encode()
        source.update(len(data).to_bytes(8, "little") + data)
    kept = _kept(place, group.number, source.hexdigest(), encoding)
    if kept is not None:
        return Done(kept, group.text_bytes, kept=True)
    tokens, ends = _encoded(group.texts, encoding)
    content = hashlib.sha256(tokens.view(np.uint8).data)
    content.update(ends.view(np.uint8).data)
    shard = Shard(
        group.number,
        len(ends),
        len(tokens),
        source.hexdigest(),
        content.hexdigest(),
        encoding.fingerprint,
        encoding.dtype,
    )
    # From here on the split is another one, or none.
    (place / META).unlink(missing_ok=True)
    (place / SAYS_CONTENT).unlink(missing_ok=True)
    _write(place / f"{shard.stem}.bin", tokens)
    _write(place / f"{shard.stem}.idx", ends)
    write_json(place / f"{shard.stem}.json", asdict(shard))
    return Done(shard, group.text_bytes, kept=False)


def _encoded(texts: Sequence[str], encoding: Encoding) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """The tokens of documents in one row, and where each of them ends."""
    tokenizer = load_encoder(encoding)
    pieces: list[npt.NDArray[Any]] = []
    lengths: list[int] = []
    for start in range(0, len(texts), _BATCH):
        for found in tokenizer.encode_batch_fast(texts[start : start + _BATCH], add_special_tokens=False):
            if found.ids:  # a tokenizer may make nothing of a text, such as of white space
                pieces.append(np.array([*found.ids, encoding.eos], dtype=encoding.dtype))
                lengths.append(len(pieces[-1]))
    row = np.concatenate(pieces) if pieces else np.empty(0, dtype=encoding.dtype)
    return row, np.cumsum(np.array(lengths, dtype=np.int64)).astype("<u8")


def _kept(place: Path, number: int, source: str, encoding: Encoding) -> Shard | None:
    """A shard that is there, of the same texts and tokenizer, and whose files hold what its record says."""
    try:
        shard = Shard(**read_json(place / f"{number:05d}.json"))
        if (shard.source, shard.tokenizer, shard.dtype) != (source, encoding.fingerprint, encoding.dtype):
            return None
        sizes = {".bin": shard.tokens * np.dtype(shard.dtype).itemsize, ".idx": 8 * shard.documents}
        if shard.number != number or any((place / f"{shard.stem}{end}").stat().st_size != sizes[end] for end in sizes):
            return None
        content = hashlib.sha256()
        for suffix in sizes:
            with (place / f"{shard.stem}{suffix}").open("rb") as stream:
                while block := stream.read(_CHUNK_BYTES):
                    content.update(block)
    except (OSError, ValueError, TypeError):
        return None
    return shard if content.hexdigest() == shard.content else None


def _write(path: Path, numbers: npt.NDArray[Any]) -> None:
    """Replace a file: whole or not at all, and on the disk."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(numbers.data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)
