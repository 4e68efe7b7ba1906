"""The processes of a run of several ranks: which one this is, and what the first one says to the others.

They speak through a store of keys and values that the first one serves (PyTorch's ``TCPStore``): JSON, no pickle, and
no collectives. So a run can be paused for days without one that waits too long, and what is said never gets in the way
of what a training sends.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

from clew.errors import ClewError, RunFailed

_SHORTEST, _LONGEST = 0.0002, 0.02
"""How long is slept between two looks for a word, at first and at last; in seconds."""
_JOIN_SECONDS = 120.0
_SWEEP = 64
"""After so many words it is made sure that all were heard, and they are taken away."""


class Store(Protocol):
    """What is needed of a ``torch.distributed.Store``."""

    def set(self, key: str, value: str, /) -> None:
        """Put a value under a key."""

    def get(self, key: str, /) -> bytes:
        """Return a value that is there."""

    def check(self, keys: list[str], /) -> bool:
        """Say whether all keys are there."""

    def delete_key(self, key: str, /) -> bool:
        """Take a key away."""


@dataclass(frozen=True)
class Ranks:
    """Which of the processes of a run this is.

    Attributes:
        rank: From 0, which is the first: it alone owns the attempt, reads the inbox, and writes results.
        size: How many there are.
        store: Where they find each other; None for one alone.
        clone: Makes another connection to the store, for another thread.
    """

    rank: int = 0
    size: int = 1
    store: Any = None
    clone: Callable[[], Any] = lambda: None

    @property
    def leads(self) -> bool:
        """Whether this is the first one."""
        return self.rank == 0


def listener() -> socket.socket:
    """Return a socket that listens on this machine's loopback, at a port that the system chooses."""
    found = socket.socket()
    found.bind(("127.0.0.1", 0))
    found.listen()
    return found


def join(rank: int, size: int, port: int, listening: socket.socket | None = None) -> Ranks:
    """Meet the other ranks at a store.

    Args:
        rank: Which this is.
        size: How many there are.
        port: Of the store.
        listening: For the first rank, which serves it: what :func:`listener` returned; it is taken over.
    """
    import torch.distributed

    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # all ranks are on this machine, and nobody else shall join
    connect: Any = torch.distributed.TCPStore  # type: ignore[attr-defined]
    given = {} if listening is None else {"is_master": True, "master_listen_fd": listening.detach()}
    timeout = timedelta(seconds=_JOIN_SECONDS)
    store = connect("127.0.0.1", port, world_size=None, timeout=timeout, wait_for_workers=False, **given)
    return Ranks(rank, size, store, store.clone)


class Channel:
    """Words from the first rank to all others, in order, and their answers; used by one thread.

    Args:
        store: The store; no other thread may use this connection to it.
        name: Tells the channel from others in the same store.
        ranks: Which process this is.
        idle: Called again and again while this waits for a word; it may raise.
    """

    def __init__(self, store: Store, name: str, ranks: Ranks, idle: Callable[[], None] = lambda: None) -> None:
        self._store = store
        self._name = name
        self._ranks = ranks
        self._idle = idle
        self._said = 0
        self._asked = 0

    def say(self, **word: Any) -> None:
        """Tell all others something; for the first rank."""
        if self._said and self._said % _SWEEP == 0:
            self._sweep()
        self._store.set(f"{self._name}/{self._said}", json.dumps(word))
        self._said += 1

    def hear(self) -> dict[str, Any]:
        """Wait for the next word of the first rank and return it; for the others."""
        word: dict[str, Any] = json.loads(self._wait(f"{self._name}/{self._said}"))
        self._said += 1
        if self._said % _SWEEP == 0:
            self._store.set(f"{self._name}/heard/{self._said}/{self._ranks.rank}", "")
        return word

    def answer(self, error: Exception | None = None) -> None:
        """Say that what was asked for is done, or what went wrong; for the others."""
        said = None if error is None else _told(error)
        self._store.set(f"{self._name}/answer/{self._asked}/{self._ranks.rank}", json.dumps(said))
        self._asked += 1

    def answers(self) -> None:
        """Wait for the answers of all others; for the first rank.

        Raises:
            OSError: If one could not write.
            RunFailed: If something else went wrong with one.
        """
        keys = [f"{self._name}/answer/{self._asked}/{rank}" for rank in range(1, self._ranks.size)]
        self._asked += 1
        said = [json.loads(self._wait(key)) for key in keys]
        for key in keys:
            self._store.delete_key(key)
        for rank, error in enumerate(said, 1):
            if error is not None:
                raise _raised(rank, **error)

    def jointly(self, work: Callable[[], Any], **word: Any) -> Any:
        """Say something that all others answer, do one's own part meanwhile, and return what came of that.

        Raises:
            Exception: What went wrong here; or else with another one, see :meth:`answers`.
        """
        self.say(**word)
        try:
            made = work()
        except Exception:
            # What went wrong here tells more than what followed from it elsewhere.
            with suppress(OSError, RunFailed):
                self.answers()
            raise
        self.answers()
        return made

    def _sweep(self) -> None:
        """Take away what all have heard: the store lives in memory."""
        keys = [f"{self._name}/heard/{self._said}/{rank}" for rank in range(1, self._ranks.size)]
        for key in keys:
            self._wait(key)
        for key in [*keys, *(f"{self._name}/{number}" for number in range(self._said - _SWEEP, self._said))]:
            self._store.delete_key(key)

    def _wait(self, key: str) -> bytes:
        pause = _SHORTEST
        while not self._store.check([key]):
            self._idle()
            time.sleep(pause)
            pause = min(_LONGEST, pause * 1.5)
        return self._store.get(key)


def _told(error: Exception) -> dict[str, Any]:
    text = error.one_line() if isinstance(error, ClewError) else str(error)
    return {"kind": type(error).__name__, "text": text, "errno": error.errno if isinstance(error, OSError) else None}


def _raised(rank: int, kind: str, text: str, errno: int | None) -> Exception:
    if errno is not None:
        return OSError(errno, f"rank {rank}: {text}")
    return RunFailed(f"rank {rank}: {kind}: {text}")
