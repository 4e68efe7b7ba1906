"""What a run ran on: versions, hardware, and the state of the code around it."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import subprocess
import sys
from importlib import metadata
from typing import Any

_LIBRARIES = ("clew", "torch", "transformers", "trl", "peft", "accelerate", "datasets", "tokenizers", "safetensors")
_GIT_SECONDS = 10.0


def environment() -> dict[str, Any]:
    """Return versions, hardware and git state, without importing a library for it."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpus": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        "libraries": {name: version for name in _LIBRARIES if (version := _version(name))},
        "git": git_state(),
    }


def git_state() -> dict[str, str] | None:
    """Return the commit of the repository around the current folder, and a hash of what is not committed.

    Returns:
        ``{"commit", "diff_sha256"}``, the hash being empty when nothing differs; None outside of a repository.
    """
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return None
    diff = _git("diff", "HEAD", "--no-ext-diff", "--binary") or b""
    return {
        "commit": commit.decode().strip(),
        "diff_sha256": hashlib.sha256(diff).hexdigest() if diff else "",
    }


def _git(*words: str) -> bytes | None:
    try:
        done = subprocess.run(["git", *words], capture_output=True, timeout=_GIT_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


@functools.cache
def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
