"""Lists of sample numbers, from files and as they stand."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clew.errors import DataError, UserError

if TYPE_CHECKING:
    from clew.inspection.samples import Ids

_LARGEST = 2**63 - 1


def read_ids(path: Path) -> Ids:
    """Read sample numbers from a file: one a line, or a JSON list. Their order is kept.

    Returns:
        [n] int64, each once.

    Raises:
        UserError: If the file cannot be read, or holds anything else, nothing, or a number twice; with the line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise DataError("this is no text", where=str(path), hint="one sample number a line, or a JSON list") from None
    except OSError as error:
        raise UserError(f"the list of ids cannot be read: {error.strerror}", where=str(path)) from None
    numbers = _of_json(text, path) if text.lstrip().startswith("[") else list(_of_lines(text, path))
    return check_ids(numbers, str(path))


def check_ids(numbers: Iterable[Any], where: str = "ids") -> Ids:
    """Return sample numbers [n] int64, each of which must be there once.

    Args:
        numbers: What was given.
        where: By whom.

    Raises:
        UserError: If there are none, one is no sample number, or one comes twice.
    """
    seen: dict[int, None] = {}
    for number in numbers:
        if type(number) is not int or not 0 <= number <= _LARGEST:
            raise DataError(f"{number!r} is no sample number; they are whole and begin at 0", where=where)
        if number in seen:
            raise DataError(f"sample {number} stands there twice", where=where)
        seen[number] = None
    if not seen:
        raise DataError("there are no sample numbers", where=where)
    return np.fromiter(seen, dtype=np.int64, count=len(seen))


def _of_json(text: str, path: Path) -> list[Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"this is no JSON: {error}", where=str(path)) from None
    assert isinstance(found, list), "it begins with a bracket"
    return found


def _of_lines(text: str, path: Path) -> Iterator[int]:
    for number, line in enumerate(text.splitlines(), start=1):
        word = line.strip()
        if word and not (word.isascii() and word.isdigit() and len(word) < 20):
            raise DataError(f"{word[:40]!r} is no sample number", where=f"{path}:{number}")
        if word:
            yield int(word)
