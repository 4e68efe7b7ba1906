"""Selections as files of a run, so that what was chosen once is chosen again exactly.

A file's name is the beginning of its SHA-256, so what is stored twice is one file, and a file says itself whether it is
whole.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clew.errors import UserError
from clew.inspection.samples import Part, Selection
from clew.runs.files import sync_directory, write_atomically

FOLDER = "selections"
_NAME = re.compile(r"[0-9a-f]{16}\.json")


@dataclass(frozen=True)
class Stored:
    """A selection in a file.

    Attributes:
        name: Of the file, in the folder :data:`FOLDER` of a run.
        sha256: Of its content, in hexadecimal.
        selection: What it holds; None takes a selection back.
    """

    name: str
    sha256: str
    selection: Selection | None


def store(run: Path, selection: Selection | None) -> Stored:
    """Store a selection durably.

    Args:
        run: The run's directory.
        selection: What to store; None takes a selection back.

    Returns:
        Where it is.
    """
    text = json.dumps(_plain(selection), separators=(",", ":"), allow_nan=False) + "\n"
    digest = hashlib.sha256(text.encode()).hexdigest()
    path = run / FOLDER / f"{digest[:16]}.json"
    if not path.parent.is_dir():
        path.parent.mkdir()
        sync_directory(run)
    write_atomically(path, text)
    return Stored(path.name, digest, selection)


def load(run: Path, name: object, sha256: str | None = None) -> Stored:
    """Read a selection back.

    Args:
        run: The run's directory.
        name: Of the file.
        sha256: What its content must hash to; None leaves it to the name.

    Raises:
        UserError: If there is none, or it is not what was stored.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UserError(f"{name!r} is no stored selection")
    path = run / FOLDER / name
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"the stored selection cannot be read: {error.strerror}", where=str(path)) from None
    digest = hashlib.sha256(content).hexdigest()
    if digest[:16] != path.stem or sha256 not in (None, digest):
        raise UserError("the stored selection is not what was stored: its hash is another one", where=str(path))
    return Stored(name, digest, _selection(json.loads(content)))


def _plain(selection: Selection | None) -> dict[str, Any]:
    if selection is None:
        return {"parts": []}
    return {
        "parts": [{"share": part.share, "ids": part.ids.tolist()} for part in selection.parts],
        "shuffled": selection.shuffled,
        "recipe": dict(selection.recipe),
    }


def _selection(found: dict[str, Any]) -> Selection | None:
    if not found["parts"]:
        return None
    parts = tuple(Part(np.array(part["ids"], dtype=np.int64), part["share"]) for part in found["parts"])
    return Selection(parts, found["recipe"], found["shuffled"])
