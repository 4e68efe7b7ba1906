"""Identifiers: sortable unique ids, and names for runs that nobody named."""

from __future__ import annotations

import re
import secrets
import time

from clew.errors import UserError

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
"""What names of runs, pipelines and stages look like: they become directories, and lead to no other place."""
NAME_IN_WORDS = "letters, digits, '.', '_' and '-', the first a letter or a digit"
"""The same for people."""
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def ulid() -> str:
    """Return a ULID: 48 bits of Unix milliseconds, then 80 random bits, 26 characters that sort by time.

    Source: the ULID specification (github.com/ulid/spec).
    """
    number = (int(time.time() * 1000) << 80) | secrets.randbits(80)
    return "".join(_CROCKFORD[(number >> shift) & 31] for shift in range(125, -5, -5))


def check_spelling(name: str, where: str) -> None:
    """Check that a run, a pipeline or a stage may be called so; nothing is no name, and stands for a fresh one.

    Args:
        name: The name.
        where: Where it was said, such as ``--name``.

    Raises:
        UserError: If it may not.
    """
    if name and not re.fullmatch(NAME, name):
        raise UserError(f"{name!r} cannot be a name", where=where, hint=f"a name is made of {NAME_IN_WORDS}")


def fresh_name(kind: str) -> str:
    """Return a name such as ``sft-20260131-142501-k3fz`` for a run that was given none."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    return f"{kind}-{stamp}-{''.join(secrets.choice(_CROCKFORD) for _ in range(4)).lower()}"
