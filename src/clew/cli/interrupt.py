"""Ctrl-C at a safe moment.

Python raises KeyboardInterrupt wherever the program happens to be: between the start of a worker and the moment when
somebody knows of it, for instance, which leaves a worker that nobody asks to stop. Here the first Ctrl-C is kept until
a place that expects it; a second one that finds the first still waiting is raised at once.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class Interrupt:
    """Holds a Ctrl-C back while the body of ``with`` runs; elsewhere than in the main thread it does nothing."""

    def __init__(self) -> None:
        self.pending = False
        """Whether a Ctrl-C waits to be delivered."""
        self.count = 0
        """How often it was pressed."""
        self._before: Any = None
        self._installed = False

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._keep)
            self._installed = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._installed:
            signal.signal(signal.SIGINT, self._before)

    def deliver(self) -> None:
        """Raise the KeyboardInterrupt that was held back, if there is one."""
        if self.pending:
            self.pending = False
            raise KeyboardInterrupt

    def _keep(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        if self.pending:
            raise KeyboardInterrupt
        self.pending = True
