"""The heartbeat that keeps a live run's lease from running out."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType

from clew.logs.logger import Logger
from clew.runs import Fenced, StateFile
from clew.runs.states import LEASE_SECONDS


class LeaseKeeper:
    """Renews a lease from a daemon thread until it is closed or another attempt takes over.

    Args:
        states: The run's state file.
        attempt: The attempt that holds the lease.
        interval: Seconds between renewals.
        tell: Called once another attempt has taken over.
    """

    def __init__(
        self,
        states: StateFile,
        attempt: int,
        *,
        interval: float = LEASE_SECONDS / 4,
        tell: Callable[[], None] = lambda: None,
    ) -> None:
        self._states = states
        self._attempt = attempt
        self._interval = interval
        self._tell = tell
        self._closed = threading.Event()
        self._log = Logger("clew.session", run=states.path.parent.name, attempt=attempt)
        self.fenced: Fenced | None = None
        """Set once another attempt has taken over; the session raises it at the next boundary."""
        self._thread = threading.Thread(target=self._keep, name="clew-lease", daemon=True)

    def __enter__(self) -> LeaseKeeper:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        self._thread.join()

    def _keep(self) -> None:
        while not self._closed.wait(self._interval):
            try:
                self._states.renew(self._attempt)
            except Fenced as error:
                self.fenced = error
                self._tell()
                self._log.warning("another attempt has taken over")
                return
            except OSError as error:
                # A file system that hiccups is no reason to end a healthy run; the lease gives it a minute.
                self._log.warning("the lease could not be renewed", reason=error.strerror)
