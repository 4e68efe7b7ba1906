"""What a location holds: a tree of files by content hash, and a few words on the run that made it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from clew.remote.errors import RemoteError
from clew.runs.files import file_digest

FORMAT = 1
_HASH_DIGITS = frozenset("0123456789abcdef")


@dataclass(frozen=True)
class Entry:
    """One file."""

    sha256: str
    bytes: int

    @property
    def digest(self) -> str:
        """The digest as :func:`matches` reads it."""
        return f"sha256:{self.sha256}"

    @classmethod
    def of(cls, path: Path) -> Entry:
        """Return the entry of a file of this machine."""
        return cls(file_digest(path), path.stat().st_size)


@dataclass(frozen=True)
class Manifest:
    """A whole state of a location."""

    files: Mapping[str, Entry]
    """Path in the tree, with ``/``, to what is there."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """The run: its name, uid, job, state and why, attempt, step, config hash, and the base of its adapter."""

    @property
    def bytes(self) -> int:
        """The size of all files."""
        return sum(entry.bytes for entry in self.files.values())

    def to_text(self) -> str:
        """Return the JSON form."""
        files = {path: asdict(self.files[path]) for path in sorted(self.files)}
        return json.dumps({"format": FORMAT, "about": dict(self.about), "files": files}, indent=1) + "\n"

    @classmethod
    def from_text(cls, text: str, where: str) -> Manifest:
        """Read the JSON form, which somebody else may have written.

        Raises:
            RemoteError: If it is damaged, of a later version, or has paths that lead out of the tree.
        """
        try:
            value = json.loads(text)
            if value["format"] > FORMAT:
                raise RemoteError(
                    f"the manifest has format {value['format']}, and this version of Clew reads {FORMAT}",
                    where=where,
                    hint="update Clew",
                )
            files = {_checked_path(path): _entry(entry) for path, entry in value["files"].items()}
            return cls(files, dict(value["about"]))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RemoteError(f"the manifest is damaged: {error}", where=where) from None


def matches(path: Path, digest: str) -> bool:
    """Say whether a file has a digest: ``sha256:HEX``, or ``git:HEX`` for the id that git gives to its content."""
    kind, _, digits = digest.partition(":")
    if kind == "sha256":
        return file_digest(path) == digits
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest() == digits


def _entry(value: dict[str, Any]) -> Entry:
    digest, size = value["sha256"], value["bytes"]
    if not (isinstance(digest, str) and len(digest) == 64 and set(digest) <= _HASH_DIGITS and isinstance(size, int)):
        raise ValueError(f"{value} is not the hash and the size of a file")
    return Entry(digest, size)


def _checked_path(path: str) -> str:
    """Refuse what could be written outside of the folder that the tree is put into."""
    parts = PurePosixPath(path).parts
    bad = {"", ".", ".."} & set(path.split("/")) or "\\" in path or "\0" in path or ":" in parts[0]
    if not parts or bad or PurePosixPath(path).is_absolute():
        raise ValueError(f"{path!r} is no path inside of a location")
    return path
