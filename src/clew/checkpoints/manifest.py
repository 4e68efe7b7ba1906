"""What a checkpoint consists of, and whether a folder is that.

The manifest is the last file that is written, and protects itself: its text is a function of its content, which
includes a hash of all the rest. So whatever becomes of a checkpoint's bytes, in any of its files, is found.
"""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from clew.checkpoints.hashing import bytes_hash, file_hash
from clew.runs.files import file_digest

MANIFEST = "manifest.json"
_HASHES = {"xxh3": file_hash, "sha256": file_digest}
"""By what files may be known; version 0.1 wrote ``sha256``, and no hash of the manifest itself."""


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint consists of."""

    step: int
    attempt: int
    files: dict[str, dict[str, int | str]]
    """Relative name to ``{"xxh3", "bytes"}``, or ``{"sha256", "bytes"}`` in old ones."""
    metric: float | None = None
    """How good the state is, lower is better, such as the validation loss; None when it was not measured."""
    saved: float = field(default_factory=time.time)
    xxh3: str = ""
    """Hash of all the rest; empty in old ones."""

    @classmethod
    def from_text(cls, text: str) -> Manifest:
        """Read what :meth:`to_text` wrote.

        Raises:
            ValueError: If it is anything else.
        """
        try:
            found = cls(**json.loads(text))
            if text == found.to_text() or found._is_old():
                return found
        except (TypeError, AttributeError) as error:
            raise ValueError(str(error)) from error
        raise ValueError("it does not match its own hash")

    def to_text(self) -> str:
        """Return the JSON form, with the hash of the rest."""
        rest = replace(self, xxh3="")
        return _dump(replace(self, xxh3=bytes_hash(_dump(rest).encode())))

    def _is_old(self) -> bool:
        """Whether version 0.1 wrote it, which gave it no hash of its own."""
        entries = all(entry.keys() == {"sha256", "bytes"} for entry in self.files.values())
        return entries and not self.xxh3 and (self.metric is None or isinstance(self.metric, int | float))

    @property
    def bytes(self) -> int:
        """The size of all files that it names."""
        return sum(int(entry["bytes"]) for entry in self.files.values())


def manifest_of(folder: Path, step: int, attempt: int, metric: float | None) -> Manifest:
    """Return the manifest of the files that lie in a folder.

    Raises:
        ValueError: If something there is no file and no folder, such as a symbolic link: it could change later.
    """
    files: dict[str, dict[str, int | str]] = {}
    for name, kind in sorted(_entries(folder)):
        if kind != "file":
            raise ValueError(f"a checkpoint cannot hold {name}, which is a {kind}")
        files[name] = {"xxh3": file_hash(folder / name), "bytes": (folder / name).stat().st_size}
    return Manifest(step, attempt, files, metric)


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a checkpoint's folder.

    Raises:
        OSError, ValueError: If it is missing or damaged.
    """
    return Manifest.from_text((folder / MANIFEST).read_text(encoding="utf-8"))


def problem_in(folder: Path, step: int) -> str:
    """Verify a checkpoint's folder, reading every file once, and return what is wrong, or an empty string."""
    try:
        entries = dict(_entries(folder))
        if entries.get(MANIFEST, "file") != "file":
            return f"{MANIFEST} is a {entries[MANIFEST]}"
        manifest = read_manifest(folder)
    except (OSError, ValueError):
        return f"{MANIFEST} is missing or damaged"
    if manifest.step != step:
        return f"{MANIFEST} belongs to step {manifest.step}"
    if extra := sorted(entries.keys() - manifest.files.keys() - {MANIFEST}):
        return f"{extra[0]} is not in the manifest"
    found = (_problem_of(folder / name, name, entries, entry) for name, entry in manifest.files.items())
    return next(filter(None, found), "")


def _problem_of(path: Path, name: str, entries: dict[str, str], entry: dict[str, int | str]) -> str:
    if name not in entries:
        return f"{name} is a folder" if path.is_dir() else f"{name} is missing"
    if entries[name] != "file":
        return f"{name} is a {entries[name]}"
    try:
        if path.stat().st_size != entry["bytes"]:
            return f"{name} does not match its hash"
        kind = next(kind for kind in _HASHES if kind in entry)
        return "" if _HASHES[kind](path) == entry[kind] else f"{name} does not match its hash"
    except OSError as error:
        return f"{name} cannot be read: {error.strerror}"


def _entries(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield everything below a folder that is no folder itself, by relative name: ``file``, or what it is instead."""
    for root, folders, names in os.walk(folder):
        links = [name for name in folders if (Path(root) / name).is_symlink()]
        for name in [*names, *links]:
            path = Path(root) / name
            mode = path.lstat().st_mode
            kind = "file" if stat.S_ISREG(mode) else "symbolic link" if stat.S_ISLNK(mode) else "special file"
            yield path.relative_to(folder).as_posix(), kind


def _dump(manifest: Manifest) -> str:
    return json.dumps(asdict(manifest), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
