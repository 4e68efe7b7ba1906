"""Durable files: whole or absent, and still there after the power went.

A rename is atomic but not durable until the directory that holds the name has been synced, so each function here syncs
the file *and* its directory (Pillai et al., "All File Systems Are Not Created Equal", OSDI 2014).
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import secrets
import shutil
from pathlib import Path
from typing import Any

from clew.errors import UserError

CHUNK_BYTES = 1 << 20
_FICLONE = 0x40049409
"""ioctl_ficlone(2): let a file share the blocks of another one."""


def sync_file(path: Path) -> None:
    """Force a file's data to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_directory(path: Path) -> None:
    """Force a directory's entries (creations, renames, removals) to the disk."""
    sync_file(path)


def sync_tree(folder: Path) -> None:
    """Force every file and directory below ``folder``, and itself, to the disk."""
    for root, _, names in os.walk(folder, topdown=False):
        for name in names:
            sync_file(Path(root) / name)
        sync_directory(Path(root))


def write_atomically(path: Path, text: str) -> None:
    """Replace ``path`` by ``text``: a reader sees the old file or the new one, after a crash as well."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Replace ``path`` atomically by ``value`` as indented JSON."""
    write_atomically(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def link_tree(source: Path, target: Path) -> None:
    """Make a folder with the content of another one, sharing the disk's space where the file system can.

    Neither feels what is deleted in the other. Files are hard links, so nobody may write into them; across file systems
    they are copies, which share their blocks where both lie on one that can (reflink).

    Args:
        source: A folder of files that nobody changes any more.
        target: Made here, and durable on return.
    """
    for root, _, names in os.walk(source):
        folder = target / Path(root).relative_to(source)
        folder.mkdir(parents=True)
        for name in names:
            _link(Path(root) / name, folder / name)
        sync_directory(folder)
    sync_directory(target.parent)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
        return
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
            raise
    with source.open("rb") as old, target.open("wb") as new:
        try:
            fcntl.ioctl(new.fileno(), _FICLONE, old.fileno())
        except OSError:
            shutil.copyfileobj(old, new, CHUNK_BYTES)
        new.flush()
        os.fsync(new.fileno())


def path_inside(folder: Path, name: str) -> Path:
    """Return a path below a folder, for somebody who is to write there and nowhere else.

    Raises:
        UserError: If it leads out: absolute, by ``..``, or through a symbolic link.
    """
    path = folder / name
    if not name or Path(name).is_absolute() or ".." in Path(name).parts or not _is_below(path, folder):
        raise UserError(f"{name!r} leads out of its folder", where=str(folder), hint="name something inside of it")
    return path


def _is_below(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve()) and path.resolve() != folder.resolve()


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def tree_digest(path: Path) -> str:
    """Return one SHA-256 for a file, or for all relative names and contents below a folder."""
    if path.is_file():
        return file_digest(path)
    digest = hashlib.sha256()
    for item in sorted(item for item in path.rglob("*") if item.is_file()):
        digest.update(f"{item.relative_to(path).as_posix()}\0{file_digest(item)}\n".encode())
    return digest.hexdigest()


def tree_bytes(path: Path) -> int:
    """Return the size of a file, or of all files below a folder, in bytes."""
    if path.is_file():
        return path.stat().st_size
    return sum(item.stat().st_size for item in path.rglob("*") if item.is_file())
