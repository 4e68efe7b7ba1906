"""A run's events as a follower gets them: numbered, in bounded batches, without what is superseded already."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from clew.runs import Event, JournalTail
from clew.runs.journal import journal_files, step_limits


class NumberedTail:
    """Reads a journal on from where somebody else has stopped.

    Args:
        folder: The run's ``journal`` directory.
        offsets: Bytes of each file that were read before.
        number: Events that were read before.
    """

    def __init__(self, folder: Path, offsets: Mapping[str, int], number: int) -> None:
        self._tail = JournalTail(folder, offsets)
        self._limits = step_limits(journal_files(folder))
        self.number = number

    @property
    def offsets(self) -> dict[str, int]:
        """Bytes of each file that have been read."""
        return dict(self._tail.offsets)

    def poll(self, limit: int) -> tuple[list[Event], bool]:
        """Return the next events, and whether anything at all was read.

        Steps that a later attempt was known to do again when this tail began are left out; the numbers count them.
        """
        events = self._tail.poll(limit)
        numbered = [{**event, "number": self.number + index} for index, event in enumerate(events)]
        self.number += len(events)
        return [event for event in numbered if self._counts(event)], bool(events)

    def _counts(self, event: Event) -> bool:
        step = event.get("step")
        return not isinstance(step, int) or step <= self._limits.get(event["attempt"], math.inf)
