"""What happens when a stage fails: ``on_failure`` and ``retry``, for the pipeline and for each stage."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from clew.config import config
from clew.runs import Failure

MAX_WAIT_SECONDS = 3600.0

_LASTING = frozenset(
    {"FileNotFoundError", "FileExistsError", "PermissionError", "IsADirectoryError", "NotADirectoryError"}
)
"""Kinds of OSError that say the same tomorrow, as the people's errors of this package do, which are in no list."""

_PASSING = frozenset(
    {
        *("killed", "interrupted", "MemoryError", "OutOfMemoryError"),
        *("OSError", "IOError", "BlockingIOError", "InterruptedError", "ChildProcessError", "TimeoutError"),
        *("ConnectionError", "ConnectionResetError", "ConnectionRefusedError", "ConnectionAbortedError"),
        *("BrokenPipeError", "URLError", "RemoteDisconnected", "IncompleteRead", "ProtocolError", "gaierror"),
        *("ConnectTimeout", "ConnectError", "ReadTimeout", "ReadError", "Timeout", "ChunkedEncodingError"),
        *("NewConnectionError", "MaxRetryError", "SSLError", "RemoteProtocolError", "ProxyError", "PoolTimeout"),
    }
)


@config
class RetryConfig:
    """How often a stage is tried again, and after how long."""

    times: Annotated[int, Field(ge=1, le=100)] = 3
    """Tries after the first one."""
    wait_seconds: Annotated[float, Field(ge=0)] = 10.0
    """Before the first of them."""
    factor: Annotated[float, Field(ge=1)] = 2.0
    """Each wait is so many times as long as the one before; none is longer than an hour."""

    def wait(self, tries: int) -> float:
        """Return the seconds to wait when ``tries`` tries have been made again already."""
        try:
            return float(min(self.wait_seconds * self.factor**tries, MAX_WAIT_SECONDS))
        except OverflowError:
            return MAX_WAIT_SECONDS


@config
class Policy:
    """What happens when a stage fails."""

    on_failure: Literal["abort", "continue", "retry", "wait"] = "abort"
    """Start nothing more; continue with what does not need it; retry, and then abort; or wait for an answer."""
    retry: RetryConfig | None = None
    """Try again first, whatever ``on_failure`` says, when the cause can pass."""

    @property
    def tries(self) -> RetryConfig | None:
        """How often to try again; None for never."""
        return self.retry or (RetryConfig() if self.on_failure == "retry" else None)


def can_pass(failure: Failure) -> bool:
    """Say whether the same stage may well succeed if it is tried again.

    A process that was killed or terminated, memory that ran out, a disk or a network that did not answer: these pass. A
    wrong config, a missing file, a defect in a job do not, and neither does anything that is not known.
    """
    if failure.kind in _LASTING:
        return False
    return failure.kind in _PASSING or (failure.kind == "RuntimeError" and _is_memory(failure.reason))


def _is_memory(reason: str) -> bool:
    """PyTorch's allocator for the CPU says it in words, as the older ones for CUDA do."""
    text = reason.lower()
    return "out of memory" in text or "can't allocate memory" in text
