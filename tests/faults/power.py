"""What a disk may hold after the power went: a small file system that remembers what was asked of it, and the order.

POSIX promises that data are on the disk once their file was synced, and names once their directory was. All the rest
may be there or not, each part by itself (Pillai et al., "All File Systems Are Not Created Equal", OSDI 2014, whose
persistence models these are, without what any real file system adds). What one call does is there as a whole or not at
all.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = 0


@dataclass
class Inode:
    """A file's bytes, or a folder's names."""

    data: bytearray = field(default_factory=bytearray)
    names: dict[str, int] | None = None

    def copy(self) -> Inode:
        """Return one that changes by itself."""
        return Inode(bytearray(self.data), None if self.names is None else dict(self.names))


@dataclass(frozen=True)
class Effect:
    """What a call changes.

    Attributes:
        inodes: Those that must be synced for it to last.
        names: (folder, name, inode, or None where the name goes).
        data: (inode, offset, bytes); bytes None cuts the file there.
    """

    inodes: frozenset[int]
    names: tuple[tuple[int, str, int | None], ...] = ()
    data: tuple[int, int, bytes | None] | None = None


@dataclass(frozen=True)
class Call:
    """A line of a record."""

    what: str
    one: str
    other: str
    offset: int
    data: bytes


def read_trace(path: Path) -> list[Call]:
    """Return what the shim has recorded."""
    raw, place, calls = path.read_bytes(), 0, []
    while place < len(raw):
        end = raw.index(b"\n", place)
        what, one, other, offset, size = raw[place:end].decode().split("\t")
        place = end + 1
        held = int(size) if what == "write" else 0
        calls.append(Call(what, one, other, int(offset), raw[place : place + held]))
        place += held
    return calls


class Disk:
    """Follows a record from a folder that is safe, and builds what may be left of it.

    Args:
        folder: The folder as it was before, with all that lies in it on the disk.
        recorded: The folder in which the record was made; the same content.
    """

    def __init__(self, folder: Path, recorded: Path) -> None:
        self._recorded = os.fspath(recorded)
        self._inodes: dict[int, Inode] = {}
        self._last = ROOT
        self._known: dict[tuple[int, int], int] = {}
        self._inodes[ROOT] = self._taken(folder)
        self._now = {number: inode.copy() for number, inode in self._inodes.items()}
        self._effects: list[Effect] = []
        self._lasting: list[bool] = []
        self._synced: dict[int, set[int]] = {}
        self.marks: list[str] = []

    def follow(self, call: Call) -> None:
        """Take note of the next call."""
        if call.what == "mark":
            self.marks.append(call.one)
        elif call.what == "sync":
            self._sync(self._find(call.one))
        elif (effect := self._effect_of(call)) is not None:
            _apply(self._now, effect)
            self._effects.append(effect)
            self._lasting.append(False)

    def states(self) -> Iterator[tuple[str, dict[int, Inode]]]:
        """Yield what may be there now, each with a name: all that is not safe is lost, or only one part of it."""
        loose = [number for number, lasting in enumerate(self._lasting) if not lasting]
        data = {number for number in loose if self._effects[number].data is not None}
        names = set(loose) - data
        yield "all is lost", self._built(set(loose))
        if data and names:
            yield "names are there before their data", self._built(data)
            yield "names are there, and zeros for their data", self._built(set(), zeros=data)
            yield "data are there without their names", self._built(names)
        for number in loose if len(loose) > 1 else []:
            yield f"the change {number} is lost", self._built({number})
            if number in names:
                yield f"only the change {number} is there", self._built(set(loose) - {number})

    def _built(self, lost: set[int], zeros: frozenset[int] | set[int] = frozenset()) -> dict[int, Inode]:
        disk = {number: inode.copy() for number, inode in self._inodes.items()}
        for number, effect in enumerate(self._effects):
            if number not in lost:
                _apply(disk, effect, zeros=number in zeros)
        return disk

    def _taken(self, folder: Path) -> Inode:
        """Read a folder as it is."""
        names = {}
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            about = entry.stat(follow_symlinks=False)
            key = (about.st_dev, about.st_ino)
            if entry.is_dir(follow_symlinks=False):
                names[entry.name] = self._new(self._taken(Path(entry.path)))
            else:
                if key not in self._known:
                    self._known[key] = self._new(Inode(bytearray(Path(entry.path).read_bytes())))
                names[entry.name] = self._known[key]
        return Inode(names=names)

    def _new(self, inode: Inode) -> int:
        number = self._last = self._last + 1
        self._inodes[number] = inode
        return number

    def _fresh(self, *, folder: bool) -> int:
        """A number for what is made now; it is empty until something is done to it."""
        number = self._new(Inode(names={} if folder else None))
        self._now[number] = self._inodes[number].copy()
        return number

    def _parts(self, path: str) -> list[str]:
        return [part for part in path.removeprefix(self._recorded).split("/") if part]

    def _find(self, path: str) -> int | None:
        place: int | None = ROOT
        for part in self._parts(path):
            names = self._now[place].names if place is not None else None
            place = None if names is None else names.get(part)
        return place

    def _folder(self, path: str) -> tuple[int, str]:
        parts = self._parts(path)
        folder = self._find("/".join([self._recorded, *parts[:-1]]))
        assert folder is not None, path
        return folder, parts[-1]

    def _effect_of(self, call: Call) -> Effect | None:
        if call.what in ("write", "cut") or (call.what == "open" and self._find(call.one) is not None):
            return self._data_effect(call)
        folder, name = self._folder(call.one)
        if call.what == "remove":
            return Effect(frozenset({folder}), ((folder, name, None),))
        if call.what in ("open", "mkdir"):
            return Effect(frozenset({folder}), ((folder, name, self._fresh(folder=call.what == "mkdir")),))
        there, new = self._folder(call.other)
        inode = self._find(call.one)
        if call.what == "link":
            return Effect(frozenset({there}), ((there, new, inode),))
        return Effect(frozenset({folder, there}), ((folder, name, None), (there, new, inode)))

    def _data_effect(self, call: Call) -> Effect | None:
        inode = self._find(call.one)
        if inode is None:  # it was deleted while it was open
            return None
        if call.what == "open":
            cut = call.other == "cut" and self._now[inode].data
            return Effect(frozenset({inode}), data=(inode, 0, None)) if cut else None
        content = None if call.what == "cut" else call.data
        return Effect(frozenset({inode}), data=(inode, call.offset, content))

    def _sync(self, inode: int | None) -> None:
        for number, effect in enumerate(self._effects):
            if inode is not None and inode in effect.inodes:
                self._synced.setdefault(number, set()).add(inode)
                self._lasting[number] = self._synced[number] >= effect.inodes


def _apply(disk: dict[int, Inode], effect: Effect, *, zeros: bool = False) -> None:
    for folder, name, inode in effect.names:
        names = disk[folder].names
        assert names is not None
        if inode is None:
            names.pop(name, None)
        else:
            names[name] = inode
    if effect.data is None:
        return
    inode, offset, content = effect.data
    data = disk[inode].data
    data.extend(bytes(max(0, offset - len(data))))
    if content is None:
        del data[offset:]
    else:
        data[offset : offset + len(content)] = bytes(len(content)) if zeros else content


def write(disk: dict[int, Inode], folder: Path) -> None:
    """Make the folder that such a disk holds."""
    _write(disk, ROOT, folder, {})


def _write(disk: dict[int, Inode], number: int, folder: Path, made: dict[int, Path]) -> None:
    folder.mkdir()
    for name, inode in (disk[number].names or {}).items():
        path = folder / name
        if disk[inode].names is not None:
            _write(disk, inode, path, made)
        elif inode in made:
            os.link(made[inode], path)
        else:
            path.write_bytes(disk[inode].data)
            made[inode] = path
