"""From JSON to columns: total functions, because a journal may hold anything and ingest never stops at it."""

from __future__ import annotations

import json
import math
from typing import Any

from clew.runs.journal import spell_non_finite

_LARGEST = 2**63


def text(value: Any) -> str | None:
    """Return a string as it is and everything else as JSON; None stays None."""
    if value is None:
        return None
    return clean(value) if isinstance(value, str) else as_json(value)


def clean(value: str) -> str:
    """Replace what PostgreSQL or UTF-8 does not have: the character NUL, and halves of surrogate pairs."""
    if value.isascii():
        return value.replace("\0", "\ufffd") if "\0" in value else value
    return value.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def as_json(value: Any) -> str | None:
    """Return compact JSON; None stays None."""
    if value is None:
        return None
    try:
        said = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError:
        said = json.dumps(spell_non_finite(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return clean(said)


def whole(value: Any) -> int | None:
    """Return an integer of 64 bits; None for everything else."""
    return int(value) if isinstance(value, int) and -_LARGEST <= value < _LARGEST else None


def real(value: Any) -> float | None:
    """Return a finite number; None for everything else."""
    return number(value)[0]


def number(value: Any) -> tuple[float | None, str | None]:
    """Return a number as ``(value, None)``, or ``(None, "nan" | "inf" | "-inf")``; ``(None, None)`` for no number."""
    if type(value) is float and math.isfinite(value):  # nearly always; an ingest spends its time here
        return value, None
    if isinstance(value, list | dict) or value is None:
        return None, None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None, None
    return (found, None) if math.isfinite(found) else (None, str(found))
