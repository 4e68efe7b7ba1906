"""What code a run is made of: a hash of our own sources and of the user's files that its config names."""

from __future__ import annotations

import functools
import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clew.config.schema import fields_of, is_config

_ROOT = Path(__file__).parents[1]
# What looks at runs or starts them cannot change what comes of them.
_ONLOOKERS = frozenset(
    {
        "cli",
        "logs",
        "reports",
        "plans",
        "notify",
        "store",
        "targets",
        "followers",
        "api.py",
        "sources.py",
        "standalone.py",
    }
)
_SUFFIXES = frozenset({".py", ".txt"})


def code_hash(job_function: Any, config: Any) -> str:
    """Return a SHA-256 over this package, the job's file and the files of every class in the config."""
    digest = hashlib.sha256(package_hash().encode())
    for path in sorted(_files_outside(job_function, config)):
        digest.update(path.read_bytes())
    return digest.hexdigest()


@functools.cache
def package_hash() -> str:
    """Return a SHA-256 over the names and contents of the sources that a worker runs."""
    digest = hashlib.sha256()
    for path in sorted(path for path in _ROOT.rglob("*") if path.suffix in _SUFFIXES):
        name = path.relative_to(_ROOT)
        if name.parts[0] not in _ONLOOKERS:
            digest.update(name.as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _files_outside(job_function: Any, config: Any) -> set[Path]:
    modules = {job_function.__module__, *(type(item).__module__ for item in _sections(config))}
    files = {Path(str(sys.modules[name].__file__)) for name in modules if sys.modules[name].__file__}
    return {path for path in files if not path.is_relative_to(_ROOT) and path.is_file()}


def _sections(value: Any) -> Iterator[Any]:
    """Yield every config object in a tree of them that can change results."""
    cls: type = type(value)
    if is_config(cls):
        yield value
        for name, field in fields_of(cls).items():
            if field.hashed:
                yield from _sections(getattr(value, name))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _sections(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _sections(item)
