"""What says that a run may be wanted for something that no step tells: one variable, looked at after every step.

A command has come, a signal, another owner, the end of what was begun beside the training: each has its own place,
and whoever puts something there raises this. So a step pays for one look, however many these places are. After
milliseconds of other work each function that a step calls costs a microsecond or two, since it has left the caches.
"""

from __future__ import annotations

import threading


class Disturbance:
    """Raised by any thread, taken by the one that trains."""

    def __init__(self) -> None:
        self.has_come = True
        """Whether it was raised since it was last taken. A signal handler sets it, and may call nothing here: the
        thread that it interrupts may be the one that waits."""
        self._event = threading.Event()

    def come(self) -> None:
        """Raise it; to be called after what there is to see can be seen."""
        self.has_come = True
        self._event.set()

    def take(self) -> None:
        """Lower it; to be called before one looks for what there is: what comes from here on raises it again."""
        self._event.clear()
        self.has_come = False

    def wait(self, seconds: float) -> None:
        """Wait until it is raised, for so long at most. A signal ends the wait only with the time."""
        self._event.wait(seconds)
