"""What becomes of files on disks, in transfers and by hand: each function damages one file of a checkpoint."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

PAGE = 4096


def flipped(where: float) -> Callable[[Path], None]:
    """Return what flips one bit, at a fraction of the file's length."""

    def damage(path: Path) -> None:
        content = bytearray(path.read_bytes())
        position = min(int(where * len(content)), len(content) - 1)
        content[position] ^= 1 << (position % 8)
        path.write_bytes(bytes(content))

    return damage


def zeroed_page(path: Path) -> None:
    content = bytearray(path.read_bytes())
    begin = len(content) // 2 // PAGE * PAGE
    content[begin : begin + PAGE] = bytes(len(content[begin : begin + PAGE]))
    path.write_bytes(bytes(content))


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def appended(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n")


def missing(path: Path) -> None:
    path.unlink()


def extra(path: Path) -> None:
    path.with_name(f"{path.name}.orig").write_bytes(path.read_bytes())


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def link(path: Path) -> None:
    """The content is the same, and may change at any time."""
    elsewhere = path.parents[3] / f"elsewhere-{path.name}"
    shutil.move(path, elsewhere)
    path.symlink_to(elsewhere)


def renamed(path: Path) -> None:
    path.rename(path.with_name(f"x{path.name}"))


ALL: dict[str, Callable[[Path], None]] = {
    "a bit at the start": flipped(0.0),
    "a bit in the first tenth": flipped(0.1),
    "a bit in the middle": flipped(0.5),
    "a bit at the end": flipped(1.0),
    "a zeroed page": zeroed_page,
    "a byte less": truncated,
    "half of it": half,
    "an empty file": empty,
    "a byte more": appended,
    "no file": missing,
    "another file beside it": extra,
    "a folder in its place": folder,
    "a link in its place": link,
    "another name": renamed,
}
