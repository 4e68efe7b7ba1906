"""Which environment variables hold secrets."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping

TYPE_CHECKING = False  # what `typing` calls it; importing that module would slow the filter process down
if TYPE_CHECKING:
    from typing import Any

VARIABLE = "CLEW_SECRETS"
"""Names of further variables that hold secrets, separated by commas."""
MIN_LENGTH = 8
"""Shorter values are words that occur everywhere, such as ``true``."""
_MIN_LINE = 16
"""A line of a value counts by itself from this length on."""
_NAME = re.compile(
    r"(?:TOKEN|SECRET|SECRETS|CREDENTIALS?|AUTH)(?:$|_)|SECRET_|PASSWORD|PASSWD|PASSPHRASE|API_?KEY|ACCESS_?KEY"
    r"|PRIVATE_?KEY|_(?:KEY|PASS|PWD|PAT|DSN)$"
)


def is_secret_name(name: str) -> bool:
    """Say whether an environment variable of this name holds a secret, such as ``HF_TOKEN`` or ``DB_PASSWORD``."""
    return name != VARIABLE and _NAME.search(name.upper()) is not None


def secret_values(environment: Mapping[str, str], names: Iterable[str] = ()) -> list[str]:
    """Return the values of the variables that hold secrets.

    Args:
        environment: The variables.
        names: Those that hold one whatever they are called, besides those that :data:`VARIABLE` lists.
    """
    listed = {*names, *(name.strip() for name in environment.get(VARIABLE, "").split(","))}
    return [value for name, value in environment.items() if name in listed or is_secret_name(name)]


def spellings(value: str) -> Iterator[str]:
    """Yield the ways in which a secret is written: as it is, escaped for JSON or a URL, and by its long lines."""
    value = value.strip()
    if len(value) < MIN_LENGTH:
        return
    yield value
    yield json.dumps(value)[1:-1]
    yield json.dumps(value, ensure_ascii=False)[1:-1]
    yield _quoted(value)
    yield from (line.strip() for line in value.splitlines() if len(line.strip()) >= _MIN_LINE)


def _quoted(text: str) -> str:
    """Percent-encode as RFC 3986 does; urllib.parse would take a third of the filter's start."""
    plain = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
    data = text.encode("utf-8", "surrogateescape")
    return "".join(chr(byte) if byte in plain else f"%{byte:02X}" for byte in data)


def named_in(tree: Any) -> set[str]:
    """Return the names of environment variables that a config gives in its fields ``*_env``."""
    if isinstance(tree, Mapping):
        own = {value for key, value in tree.items() if str(key).endswith("_env") and isinstance(value, str) and value}
        return own.union(*(named_in(value) for value in tree.values()))
    if isinstance(tree, list | tuple):
        return set().union(*(named_in(item) for item in tree))
    return set()
