"""Hears that something has come into a folder, without asking for it again and again.

A training asks after every step whether somebody wants something. To ask the file system is quick in a loop that does
nothing else, and takes many times as long after milliseconds of other work, when nothing of it is in the processor's
caches any more. Where the kernel can tell (Linux, inotify(7)), a thread waits for its word, and to ask is to look at a
variable.

What other machines put into a folder of a network file system the kernel does not tell. So it rings now and then
without a reason.
"""

from __future__ import annotations

import ctypes
import os
import select
import struct
import threading
from collections.abc import Callable
from pathlib import Path

_CLOSE_WRITE, _MOVED_TO, _CREATE, _IGNORED = 0x8, 0x80, 0x100, 0x8000
_HEADER = struct.Struct("iIII")
_BYTES = 4096


class Bell:
    """Rings when a file comes into a folder. One thread may ask it.

    Args:
        folder: The folder.
        tell: Called by the thread that listens, when it has rung, and when it hears nothing any more.
        every: Seconds after which it rings in any case.

    Raises:
        OSError: If the kernel cannot tell, or the folder is not there.
    """

    def __init__(self, folder: Path, tell: Callable[[], None] = lambda: None, *, every: float | None = None) -> None:
        self.is_alive = True
        """Whether it would hear anything; not any more once the folder is gone."""
        self.has_rung = True  # for what lies there already
        """Whether it has rung since :meth:`take`."""
        self._tell = tell
        self._every = every
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self._events = _watch(folder)
        self._end, self._ending = os.pipe()
        threading.Thread(target=self._listen, name="clew-bell", daemon=True).start()

    def ring(self) -> None:
        """Ring it by hand: who knows that something has come need not wait for the kernel to say it."""
        self.has_rung = True
        self._tell()

    def take(self) -> bool:
        """Say whether it has rung since the last time that it was asked."""
        if not self.has_rung:
            return False
        self.has_rung = False  # first: what comes from here on rings again
        return True

    def close(self) -> None:
        """Listen no more. In a process that was forked it belongs to the other one."""
        if self._owner != os.getpid():
            return
        with self._lock:
            if self.is_alive:
                os.write(self._ending, b".")

    def _listen(self) -> None:
        try:
            while True:
                ready, _, _ = select.select([self._events, self._end], [], [], self._every)
                if self._end in ready:
                    return
                if ready and any(mask & _IGNORED for mask in _masks(os.read(self._events, _BYTES))):
                    return
                self.ring()
        finally:
            with self._lock:
                self.is_alive = False
                for handle in (self._events, self._end, self._ending):
                    os.close(handle)
            self._tell()


def _watch(folder: Path) -> int:
    """Return a handle that can be read when a file has come into a folder."""
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        init, add = libc.inotify_init1, libc.inotify_add_watch
    except AttributeError:
        raise OSError("this system has no inotify") from None
    handle = int(init(os.O_CLOEXEC | os.O_NONBLOCK))
    if handle < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    if add(handle, os.fsencode(folder), ctypes.c_uint32(_CLOSE_WRITE | _MOVED_TO | _CREATE)) < 0:
        number = ctypes.get_errno()
        os.close(handle)
        raise OSError(number, os.strerror(number), str(folder))
    return handle


def _masks(events: bytes) -> list[int]:
    """What each of some events is about; behind its header stands a name of the length that it says."""
    masks, place = [], 0
    while place < len(events):
        _, mask, _, length = _HEADER.unpack_from(events, place)
        masks.append(mask)
        place += _HEADER.size + length
    return masks
