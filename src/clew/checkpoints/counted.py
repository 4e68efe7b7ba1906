"""Which checkpoints of a run still count, by its journal: for who has copies of them that may be of another way."""

from __future__ import annotations

from collections.abc import Mapping

from clew.runs import Run

_PARTINGS = ("went_back", "changed")
"""Events of an attempt that does otherwise than those before it; any other attempt does the same steps again."""


def counted_checkpoints(run: Run) -> Mapping[int, int]:
    """Return the steps at which a run has saved states that still count.

    Returns:
        To each step the first attempt whose copy of that state will do: an earlier one went another way.
    """
    partings = {event["attempt"] for event in run.events(*_PARTINGS)}
    found: dict[int, int] = {}
    for event in run.events("checkpoint"):
        found[event["step"]] = max((one for one in partings if one <= event["attempt"]), default=0)
    return found
