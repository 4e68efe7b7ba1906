"""Comparing answers."""

from __future__ import annotations

import unicodedata


def normalise(text: str) -> str:
    """Return a text without what nobody means: case, runs of white space, compatibility forms of characters."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
