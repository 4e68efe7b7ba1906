"""Folders of token files, as they are read: shards of raw numbers beside a file that says what they hold.

A folder holds, for each split, ``meta.json`` and numbered shards: ``00000.bin`` has the tokens, little-endian uint16 or
uint32, each document followed by eos; ``00000.idx`` has where each document ends, counted in tokens from the shard's
beginning, little-endian uint64. ``meta.json`` is written last: without it, a split is not finished. Beside the splits,
``tokenizer`` has the tokenizer's files.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clew.data.packing import Tokens
from clew.errors import DataError
from clew.runs.files import read_json

FORMAT = 1
META = "meta.json"
TOKENIZER = "tokenizer"
SPLITS = ("train", "validation")


@dataclass(frozen=True)
class Shard:
    """One finished file of tokens with its index.

    Attributes:
        number: From 0; the order of the documents.
        documents: How many it holds.
        tokens: How many it holds, eos included.
        source: SHA-256 of the texts.
        content: SHA-256 of the tokens' and the index's bytes.
        tokenizer: The fingerprint of what made them.
        dtype: ``<u2`` or ``<u4``.
    """

    number: int
    documents: int
    tokens: int
    source: str
    content: str
    tokenizer: str
    dtype: str

    @property
    def stem(self) -> str:
        """What its files are called."""
        return f"{self.number:05d}"


@dataclass(frozen=True)
class TokenFiles:
    """A finished split of a folder of token files.

    Attributes:
        folder: Where its shards are.
        shards: In their order.
        tokenizer: The tokenizer's fingerprint.
        eos: The id of the token after each document.
        digest: SHA-256 of what all shards hold.
    """

    folder: Path
    shards: tuple[Shard, ...]
    tokenizer: str
    eos: int
    digest: str

    @property
    def num_tokens(self) -> int:
        """Tokens in all shards."""
        return sum(shard.tokens for shard in self.shards)

    @property
    def num_documents(self) -> int:
        """Documents in all shards."""
        return sum(shard.documents for shard in self.shards)

    def rows(self) -> list[Tokens]:
        """Return the tokens of each shard, mapped into memory: nothing is read until it is looked at."""
        return [_mapped(self.folder / f"{shard.stem}.bin", shard.dtype, shard.tokens) for shard in self.shards]

    def document(self, number: int) -> Tokens:
        """Return the tokens of a document, without the eos after it.

        Raises:
            IndexError: If there is no such document.
        """
        if number < 0:
            raise IndexError(number)
        for shard in self.shards:
            if number < shard.documents:
                ends = _mapped(self.folder / f"{shard.stem}.idx", "<u8", shard.documents)
                start = int(ends[number - 1]) if number else 0
                row = _mapped(self.folder / f"{shard.stem}.bin", shard.dtype, shard.tokens)
                found: Tokens = row[start : int(ends[number]) - 1]
                return found
            number -= shard.documents
        raise IndexError(number)


def open_tokens(folder: Path, split: str = "train") -> TokenFiles | None:
    """Return a split of a folder of token files; None where it has no such split.

    The sizes of all files are checked, not what they hold: ``clew tokenize``, given the same input again, does that.

    Raises:
        DataError: If the split is not finished, or a file is missing, too short or too long.
    """
    place = folder / split
    if not place.is_dir():
        return None
    hint = "run the same clew tokenize again: it keeps what is whole and makes the rest"
    try:
        meta = read_json(place / META)
        if meta["format"] != FORMAT:
            raise DataError(f"these token files have the format {meta['format']}, not {FORMAT}", where=str(place))
        files = _of_meta(place, meta)
    except FileNotFoundError:
        raise DataError("these token files are not finished", where=str(place), hint=hint) from None
    except (ValueError, KeyError, TypeError):
        raise DataError("this file is damaged", where=str(place / META), hint=hint) from None
    for shard in files.shards:
        sizes = {".bin": shard.tokens * np.dtype(shard.dtype).itemsize, ".idx": 8 * shard.documents}
        for suffix, size in sizes.items():
            path = place / f"{shard.stem}{suffix}"
            found = path.stat().st_size if path.is_file() else None
            if found != size:
                what = "is missing" if found is None else f"has {found:,} bytes instead of {size:,}"
                raise DataError(f"a shard {what}", where=str(path), hint=hint)
    return files


def is_token_folder(path: Path) -> bool:
    """Return whether a folder is one that ``clew tokenize`` makes, finished or not."""
    return (path / TOKENIZER).is_dir() and any((path / split).is_dir() for split in SPLITS)


def _of_meta(folder: Path, meta: dict[str, Any]) -> TokenFiles:
    shards = tuple(Shard(**shard) for shard in meta["shards"])
    return TokenFiles(folder, shards, meta["tokenizer"], meta["eos"], meta["digest"])


def _mapped(path: Path, dtype: str, count: int) -> npt.NDArray[Any]:
    """A file as an array that is read when it is looked at; an empty file cannot be mapped."""
    if not count:
        return np.empty(0, dtype=dtype)
    # A plain array over the mapping: each slice of a memmap object would cost microseconds.
    return np.asarray(np.memmap(path, dtype=dtype, mode="r", shape=(count,)))
