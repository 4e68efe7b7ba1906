"""Hashes of contents at the speed of memory: XXH3, 128 bits.

They find every error that disks, networks and people make, and are no defence against somebody who wants two contents
to look alike: what identifies a content to others is SHA-256 (:func:`clew.runs.files.file_digest`). Source: the XXH3
algorithm of the xxHash specification.
"""

from __future__ import annotations

import errno
import mmap
import os
from pathlib import Path
from typing import BinaryIO

import xxhash

_CHUNK_BYTES = 1 << 18
"""Small enough that what was read is still in the processor's cache when it is hashed."""
_WINDOW_BYTES = 1 << 25
_POPULATE_READ = 22
"""MADV_POPULATE_READ of madvise(2), Linux 5.14: map pages, and say what went wrong instead of raising a signal."""


def bytes_hash(content: bytes) -> str:
    """Return 32 hexadecimal digits."""
    return str(xxhash.xxh3_128_hexdigest(content))


def file_hash(path: Path) -> str:
    """Return 32 hexadecimal digits of a file's content, which is gone through once.

    Large files are hashed where the system holds them, without a copy: half the time.

    Raises:
        OSError: If it cannot be read.
    """
    with path.open("rb", buffering=0) as stream:
        size = os.fstat(stream.fileno()).st_size
        try:
            return _mapped(stream.fileno(), size) if size > _WINDOW_BYTES else _read(stream)
        except OSError as error:
            if error.errno == errno.EFAULT:  # how a page says that it could not be read
                raise OSError(errno.EIO, os.strerror(errno.EIO), str(path)) from error
            if error.errno not in (errno.EINVAL, errno.ENODEV, errno.ENOSYS):
                raise
            return _read(stream)  # an older kernel, or a file system without such files


def _read(stream: BinaryIO) -> str:
    found, buffer = xxhash.xxh3_128(), memoryview(bytearray(_CHUNK_BYTES))
    while size := stream.readinto(buffer):  # type: ignore[attr-defined]
        found.update(buffer[:size])
    return str(found.hexdigest())


def _mapped(descriptor: int, size: int) -> str:
    """Hash a file through the memory that holds it. A page that cannot be read is asked for first: touched without
    that, it would end the process by a signal."""
    found = xxhash.xxh3_128()
    with mmap.mmap(descriptor, size, access=mmap.ACCESS_READ) as pages, memoryview(pages) as view:
        for begin in range(0, size, _WINDOW_BYTES):
            length = min(_WINDOW_BYTES, size - begin)
            pages.madvise(_POPULATE_READ, begin, length)
            found.update(view[begin : begin + length])
    return str(found.hexdigest())
