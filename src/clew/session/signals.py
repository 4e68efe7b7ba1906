"""Termination signals as requests: the run saves at its next boundary and ends as interrupted."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from clew.session.disturbance import Disturbance

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopSignals:
    """Remembers the first termination signal; a second one has its usual, immediate effect.

    Args:
        disturbance: Raised when one has come.
    """

    def __init__(self, disturbance: Disturbance) -> None:
        self._disturbance = disturbance
        self.received = ""
        """Name of the signal that came; empty while none has."""
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        # Handlers can only be set in the main thread; a session elsewhere leaves the signals to their owner.
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._receive) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number).name
        self._disturbance.has_come = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
