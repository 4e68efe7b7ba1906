"""A job that runs out of disk at a place of one's choice, in its first attempt; real workers load it from this file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import clew

Place = Literal["journal", "checkpoint", "artifact", "result", "state"]


def fill(folder: Path) -> None:
    """Leave not a byte."""
    descriptor = os.open(folder / "filler", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    size = 1 << 20
    while size:
        try:
            os.write(descriptor, bytes(size))
        except OSError:
            size //= 2
    os.close(descriptor)


@clew.config
class FillConfig(clew.JobConfig):
    """Count to 20, on a small disk."""

    place: Place = "journal"
    """Where the disk is full: it fills up after step 7."""


class Sum:
    """Its state is a number, and some ballast."""

    value = 0

    def save(self, directory: Path) -> None:
        (directory / "value").write_text(str(self.value))
        (directory / "ballast").write_bytes(bytes(20000))

    def load(self, directory: Path) -> None:
        self.value = int((directory / "value").read_text())


@clew.job
def count(session: clew.Session[FillConfig]) -> clew.Outcome:
    """Count, and fill the disk on the way."""
    place = session.config.place if session.attempt == 1 else "nowhere"
    disk = session.run.path.parents[1]
    total = Sum()
    for step in range(session.attach(total, clew.CheckpointConfig(every=5)) + 1, 21):
        total.value += step
        session.log(step, value=total.value)
        if step == 7 and place in ("journal", "checkpoint"):
            fill(disk)
        if step > 7 and place == "journal":
            session.event("sample", step=step, text="x" * 20000)
            session.events("sample")  # which hands the journal to the disk
        session.boundary(step)
    if place == "artifact":
        fill(disk)
    with session.artifact("total") as path:
        path.write_text(str(total.value) * 10000)
    if place in ("result", "state"):
        fill(disk)
    if place == "state":  # somebody else has taken even what was kept for the end
        (session.run.path / ".reserve").unlink()
        fill(disk)
    return clew.Outcome(metrics={"value": total.value})
