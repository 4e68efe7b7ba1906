"""On which kind of file system a path lies: SQLite's write-ahead log needs one whose locks and shared memory work."""

from __future__ import annotations

import re
from pathlib import Path

_MOUNTS = Path("/proc/self/mountinfo")
_OCTAL = re.compile(r"\\([0-7]{3})")
# fmt: off
NETWORK = frozenset({
    "9p", "acfs", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "fhgfs", "glusterfs", "gpfs", "lustre",
    "ncpfs", "nfs", "nfs4", "orangefs", "panfs", "pvfs2", "smb2", "smb3", "smbfs", "vboxsf", "virtiofs",
})
# fmt: on
"""Kinds that other machines may write to as well, as mount(8) and the kernel name them."""
_FUSE_LOCAL = frozenset({"fuseblk", "fuse.ntfs-3g", "fuse.fuse-overlayfs", "fuse.mergerfs", "fuse.bindfs"})


def file_system(path: Path, mounts: str | None = None) -> str:
    """Return the kind of file system that a path lies on, or would lie on.

    Args:
        path: A file or folder that need not exist.
        mounts: The text of ``/proc/self/mountinfo`` (proc(5)); None reads it.

    Returns:
        A kind such as ``ext4`` or ``nfs4``; empty where the system does not tell.
    """
    if mounts is None:
        try:
            mounts = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape")
        except OSError:
            return ""
    resolved, found = path.resolve(), ("", -1)
    for line in mounts.splitlines():
        left, _, right = line.partition(" - ")
        point, kind = Path(_unescaped(left.split()[4])), right.split()[0]
        # Of two mounts on one place, the later one lies above.
        if resolved.is_relative_to(point) and len(point.parts) >= found[1]:
            found = (kind, len(point.parts))
    return found[0]


def is_network(kind: str) -> bool:
    """Say whether a kind of file system is one of a network; of FUSE all but a few are."""
    return kind in NETWORK or (kind.startswith("fuse") and kind not in _FUSE_LOCAL)


def _unescaped(text: str) -> str:
    """The kernel writes blanks and the like as three octal digits."""
    return _OCTAL.sub(lambda found: chr(int(found[1], 8)), text)
