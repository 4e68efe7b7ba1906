"""Hashes of contents at the speed of memory: XXH3, 128 bits.

They find every error that disks, networks and people make, and are no defence against somebody who wants two contents
to look alike: what identifies a content to others is SHA-256 (:func:`clew.runs.files.file_digest`). Source: the XXH3
algorithm of the xxHash specification.
"""

from __future__ import annotations

from pathlib import Path

import xxhash

CHUNK_BYTES = 1 << 18
"""Small enough that what was read is still in the processor's cache when it is hashed."""


def bytes_hash(content: bytes) -> str:
    """Return 32 hexadecimal digits."""
    return str(xxhash.xxh3_128_hexdigest(content))


def file_hash(path: Path) -> str:
    """Return 32 hexadecimal digits of a file's content, which is read once.

    It is read and not mapped into memory: a sector that cannot be read is then an OSError with a name, and no signal
    that ends the process.

    Raises:
        OSError: If it cannot be read.
    """
    found = xxhash.xxh3_128()
    buffer = memoryview(bytearray(CHUNK_BYTES))
    with path.open("rb", buffering=0) as stream:
        while size := stream.readinto(buffer):
            found.update(buffer[:size])
    return str(found.hexdigest())
