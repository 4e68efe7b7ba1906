"""Which split something belongs to: a pure function of its content."""

from __future__ import annotations

import hashlib

from clew.errors import UserError, did_you_mean
from clew.tasks.base import SPLITS


def check_split(split: str) -> str:
    """Return the name of a split.

    Raises:
        UserError: If there is no such split.
    """
    if split not in SPLITS:
        raise UserError(f"there is no split {split!r}", hint=did_you_mean(split, SPLITS))
    return split


def content_hash(text: str) -> str:
    """Return a hexadecimal SHA-256, the same in every process and version."""
    return hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).hexdigest()


def split_of(key: str, *, validation: float, test: float) -> str:
    """Return the split of a piece of content.

    Every occurrence of the same content lands in the same split, so that nothing trained on is tested on, whatever
    the order, the seed or the number of rows.

    Args:
        key: The content that must not be on both sides.
        validation: Share of the validation split, from 0 to 1.
        test: Share of the test split, from 0 to 1; the rest is for training.
    """
    position = int(content_hash(key)[:16], 16) / 16**16
    if position < test:
        return "test"
    return "validation" if position < test + validation else "train"
