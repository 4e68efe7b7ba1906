"""Identifiers: sortable unique ids, and names for runs that nobody named."""

from __future__ import annotations

import secrets
import time

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def ulid() -> str:
    """Return a ULID: 48 bits of Unix milliseconds, then 80 random bits, 26 characters that sort by time.

    Source: the ULID specification (github.com/ulid/spec).
    """
    number = (int(time.time() * 1000) << 80) | secrets.randbits(80)
    return "".join(_CROCKFORD[(number >> shift) & 31] for shift in range(125, -5, -5))


def fresh_name(kind: str) -> str:
    """Return a name such as ``sft-20260131-142501-k3fz`` for a run that was given none."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    return f"{kind}-{stamp}-{''.join(secrets.choice(_CROCKFORD) for _ in range(4)).lower()}"
