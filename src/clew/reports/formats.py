"""Numbers, times and texts as a report shows them. What is missing is a dash, never a zero."""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime
from typing import Any

MISSING = "–"
MAX_TEXT = 1200
"""Characters of a prompt, completion or reference that a report shows."""

_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


def number(value: float | None) -> str:
    """Return a number with four significant digits; whole numbers exactly."""
    if value is None:
        return MISSING
    if not math.isfinite(value):
        return str(value)
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.1f}" if abs(value) >= 10_000 else f"{value:.4g}"


def percent(share: float | None) -> str:
    """Return a share in percent."""
    return MISSING if share is None else f"{100 * share:.1f} %"


def percent_range(interval: tuple[float, float] | None) -> str:
    """Return an interval of shares in percent."""
    return MISSING if interval is None else f"{100 * interval[0]:.1f} – {100 * interval[1]:.1f} %"


def difference(value: float, *, in_percent: bool) -> str:
    """Return a signed difference; of shares in percentage points."""
    text = f"{100 * abs(value):.1f} points" if in_percent else number(abs(value))
    sign = "±" if text in ("0", "0.0 points") else "+" if value > 0 else "−"
    return f"{sign}{text}"


def duration(seconds: float | None) -> str:
    """Return a time span in the units that suit its length."""
    if seconds is None:
        return MISSING
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def size(count: int) -> str:
    """Return a number of bytes."""
    if count < 1000:
        return f"{count} B"
    for power, unit in ((3, "GB"), (2, "MB")):
        if count >= 1000**power:
            return f"{count / 1000**power:,.1f} {unit}"
    return f"{count / 1000:.1f} kB"


def moment(seconds: float | None) -> str:
    """Return a point in time, in UTC."""
    return MISSING if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"


def clean(text: str) -> str:
    """Spell out characters that would be invisible, reorder a line, drive a terminal, or not be UTF-8."""
    return _UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", text.replace("\r\n", "\n"))


def clip(text: str, limit: int = MAX_TEXT) -> str:
    """Shorten a long text and say by how much."""
    return text if len(text) <= limit else f"{text[:limit]} … ({len(text) - limit:,} more characters)"


def shorten(name: str, limit: int) -> str:
    """Shorten a name in its middle, for beginning and end tell names apart."""
    keep = (limit - 1) // 2
    return name if len(name) <= limit else f"{name[:keep]}…{name[-keep:]}"


def spoken(value: Any) -> str:
    """Return a prompt, completion or reference as text; a conversation as one paragraph for each message."""
    if value is None:
        return MISSING
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(item, dict) and {"role", "content"} <= item.keys() for item in value):
        return "\n".join(f"{item['role']}: {item['content']}" for item in value)
    return json.dumps(value, ensure_ascii=False)


def to_float(value: Any) -> float | None:
    """Return the number that a journal holds, where ``nan`` and infinities are spelled as text; None for none."""
    if type(value) is float:
        return value  # nearly all are: a report reads a million of them
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except ValueError:
        return None


def slug(text: str) -> str:
    """Return a name that every file system takes."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.") or "stage"
