"""How a run stands now, from the end of its journal: a long run's journal need not be read for a table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clew.runs import Event, Run
from clew.runs.journal import decode, journal_files

_TAIL_BYTES = 1 << 17


@dataclass(frozen=True)
class Latest:
    """The last known step and figures of a run."""

    step: int | None = None
    total: int | None = None
    unit: str = "step"
    metrics: dict[str, Any] = field(default_factory=dict)
    metrics_step: int | None = None
    """The step to which the figures belong."""
    refused: tuple[str, ...] = ()
    """What the fork that made the run asked of it, and its trainer rejected."""
    paused: str = ""
    """Why it was paused the last time, and why it could not be stopped since then."""

    @property
    def steps(self) -> str:
        """Such as ``120/400``; empty when no step is known."""
        if self.step is None:
            return ""
        return f"{self.step}/{self.total}" if self.total else str(self.step)


def latest(run: Run) -> Latest:
    """Return how a run stands; the figures of a result are those of the whole run and come first."""
    result = run.result
    final = dict(result.metrics) if result is not None and result.metrics else {}
    step = total = metrics_step = None
    unit, paused, unheard = "step", "", ""
    metrics: dict[str, Any] = {}
    refused: list[str] = []
    for event in _events(run.path / "journal"):
        kind = event["kind"]
        if kind == "horizon":
            total, unit = event["total"], event["unit"]
        elif kind in ("metric", "checkpoint", "restore") and isinstance(event.get("step"), int):
            # A checkpoint that was written beside the training is told after the steps that were made meanwhile.
            step = event["step"] if kind == "restore" else max(step or 0, event["step"])
            if kind == "metric":
                metrics.update(event["values"])
                metrics_step = step
        elif kind == "command" and event.get("issuer") == "fork" and str(event["outcome"]).startswith("rejected"):
            args = " ".join(f"{key}={value}" for key, value in event.get("args", {}).items())
            refused.append(f"{event['verb']} {args} {event['outcome']}")
        elif kind == "command" and event["verb"] == "pause" and event["outcome"] == "applied":
            paused, unheard = _why_paused(event), ""
        elif kind == "command" and event["verb"] == "stop" and str(event["outcome"]).startswith("rejected"):
            unheard = f"; stop was {event['outcome']}"
    last_known = None if final else metrics_step
    return Latest(step, total, unit, final or metrics, last_known, tuple(refused), paused and paused + unheard)


def _why_paused(event: Event) -> str:
    """The sentence about a pause: a run that paused by itself waits for somebody, who must learn what for."""
    after, issuer = f"after step {event.get('at')}", event.get("issuer")
    if issuer == "disk":
        return f"the disk is full: nothing could be saved {after}; make space, then let it go on"
    if issuer == "on_nan":
        return f"the loss or its gradient was no longer finite {after}"
    return f"{issuer} asked for it {after}"


def _events(folder: Path) -> Iterator[Event]:
    """The events of rank 0: the beginning (where the horizon stands) and the end of each attempt's file."""
    for path, _, rank in journal_files(folder):
        if rank == 0:
            for line in _ends(path):
                if (event := decode(line)) is not None and "kind" in event:
                    yield event


def _ends(path: Path) -> list[bytes]:
    with path.open("rb") as stream:
        head = stream.read(_TAIL_BYTES).splitlines()
        read = stream.tell()
        length = stream.seek(0, 2)
        if length <= read:
            return head
        stream.seek(max(read, length - _TAIL_BYTES))
        return [*head, *stream.read().splitlines()]
