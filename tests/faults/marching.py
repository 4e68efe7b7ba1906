"""A walk that publishes where it has come to, as a job; whole runs of it meet faults."""

from __future__ import annotations

import walks

import clew


@clew.job
def march(session: clew.Session[walks.WalkConfig]) -> clew.Outcome:
    """Walk, and publish the position."""
    position = walks.go(session).position
    with session.artifact("map") as folder:
        folder.mkdir()
        (folder / "position").write_text(repr(position))
        (folder / "steps").write_text(str(session.config.steps))
    return clew.Outcome(metrics={"position": position})
