"""What a run's journal alone says about its health: of a run that is over, or one that does not answer."""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Iterable, Mapping
from statistics import median
from typing import Any

from clew.health.losses import tidy, told
from clew.health.spikes import SpikeFinder
from clew.health.verdict import AREAS, WORDS, judged
from clew.runs import Event

_WINDOW = 1024
"""Intervals between metrics that are remembered: a journal may hold millions."""
_GAP_TIMES, _GAP_SECONDS = 10.0, 30.0
"""A gap is so many times as long as what is usual, and so long: a checkpoint or a validation is none of that."""
_MOST_GAPS = 3
_HELD_OUT = ("val", "eval", "test")


def journal_report(events: Iterable[Event]) -> dict[str, Any]:
    """Say how a training did, from its events in one pass.

    Args:
        events: Of a run, as they count now.

    Returns:
        A report as :func:`clew.health.report.health_report` returns it, as far as the journal tells: ``losses``,
        ``throughput`` and a section of its own, ``history`` (attempts, pauses, commands, what was not finite). The rest
        is None.
    """
    losses, pace, history = _Losses(), _Pace(), _History()
    for event in events:
        if event.get("rank", 0) != 0:
            continue
        losses.add(event)
        pace.add(event)
        history.add(event)
    nothing = dict.fromkeys(("numerics", "activations", "determinism", "distribution"))
    throughput = pace.section()
    return judged(
        {
            "step": pace.step,
            **nothing,
            "losses": losses.section(),
            "throughput": throughput,
            "history": history.section(losses.name),
        }
    )


def completed(report: Mapping[str, Any] | None, known: Mapping[str, Any]) -> dict[str, Any]:
    """Return a trainer's own report together with what the journal knows, judged anew.

    The trainer's section counts where there is one, except for losses that are older than those in the journal. What a
    job of somebody's own finds, in areas of its own, stays as it is.

    Args:
        report: What the trainer said; None where it said nothing.
        known: What :func:`journal_report` returned.
    """
    own = {name: section for name, section in (report or {}).items() if section is not None}
    if (own.get("step") or 0) < (known.get("step") or 0):
        own.pop("losses", None)
    sections = {**known, **own}
    whole = judged({name: section for name, section in sections.items() if name not in ("verdict", "findings")})
    foreign = [one for one in own.get("findings", ()) if isinstance(one, dict) and one.get("area") not in AREAS]
    words = [whole["verdict"], *(str(one.get("word")) for one in foreign)]
    if not any(area in own for area in AREAS):
        words.append(own.get("verdict", "well"))
    return {**whole, "verdict": max(words, key=_rank), "findings": sorted([*whole["findings"], *foreign], key=_order)}


def _rank(word: str) -> int:
    return WORDS.index(word) if word in WORDS else 0


def _order(finding: Mapping[str, Any]) -> int:
    return -_rank(str(finding.get("word")))


def finite(value: Any) -> float | None:
    """Return a journalled figure as a number, also one that is not finite; None for what is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except ValueError:
        return None


class _Losses:
    """The training loss: ``loss``, or the first metric that is called one and is not of held-out data."""

    def __init__(self) -> None:
        self.name: str | None = None
        self._finder = SpikeFinder()
        self._newest = math.nan
        self._steps: dict[int, int] = {}

    def add(self, event: Event) -> None:
        values = _values(event)
        if self.name is None or (self.name != "loss" and "loss" in values):
            self.name = "loss" if "loss" in values else next(filter(_is_training_loss, values), self.name)
        value = finite(values.get(self.name)) if self.name else None
        if value is None:
            return
        index = self._finder.count
        self._finder.add(value)
        self._newest = value
        spikes = self._finder.spikes
        if self._finder.lost == index or (spikes and spikes[-1].index == index):
            self._steps[index] = event["step"]

    def section(self) -> dict[str, Any] | None:
        """As a report has it; None where no loss was journalled."""
        return told(self._finder, self._steps.get, newest=self._newest) if self._finder.count else None


class _Pace:
    """How quickly metrics came, without pauses and restarts."""

    def __init__(self) -> None:
        self.step: int | None = None
        self._before: tuple[float, int, int] | None = None
        self._last = 0.0
        self._paused_at: float | None = None
        self._seconds: deque[float] = deque(maxlen=_WINDOW)
        self._waits: deque[float] = deque(maxlen=_WINDOW)
        self._longest: list[tuple[float, int]] = []
        self._tokens: float | None = None
        self._busy = self._pauses = 0.0

    def add(self, event: Event) -> None:
        now = finite(event.get("t"))
        if now is None:
            return
        if event.get("kind") == "paused":
            self._paused_at = now
        elif event.get("kind") == "resumed" and self._paused_at is not None:
            self._pauses += now - self._paused_at
            self._paused_at, self._before = None, None  # what was between the two metrics is no step's time
        elif values := _values(event):
            self._add_metric(event["step"], event.get("attempt", 1), now)
            self._tokens = finite(values.get("tokens_per_second")) or self._tokens
        self._last = now

    def _add_metric(self, step: int, attempt: int, now: float) -> None:
        before, self._before = self._before, (now, step, attempt)
        self.step = max(step, self.step or 0)
        if before is None or before[2] != attempt or step <= before[1]:
            return
        self._seconds.append((now - before[0]) / (step - before[1]))
        self._busy += now - before[0]
        # A validation or a checkpoint writes something when it is done: only what nothing explains is a gap.
        wait = now - self._last
        self._waits.append(wait)
        if wait >= _GAP_SECONDS:
            heapq.heappush(self._longest, (wait, before[1]))
        if len(self._longest) > _WINDOW:
            heapq.heappop(self._longest)

    def section(self) -> dict[str, Any] | None:
        """As a report has it, with ``gaps``, the longest first; None where there were no two steps to compare."""
        if not self._seconds:
            return None
        # Metrics may come every hundred steps: a gap is long beside the usual wait, not beside the usual step.
        least = _GAP_TIMES * median(self._waits)
        gaps = [(wait, step) for wait, step in sorted(self._longest, reverse=True) if wait >= least]
        return {
            "steps": None,
            "median_seconds": tidy(median(self._seconds)),
            "p95_seconds": None,
            "data_share": None,
            "pause_share": tidy(self._pauses / (self._pauses + self._busy)) if self._pauses + self._busy > 0 else None,
            "tokens_per_second": tidy(self._tokens),
            "gpu_idle": None,
            "num_gaps": len(gaps),
            "gaps": [{"step": step, "seconds": tidy(wait)} for wait, step in gaps[:_MOST_GAPS]],
        }


class _History:
    """What happened besides steps."""

    def __init__(self) -> None:
        self._attempts = self._pauses = self._applied = self._refused = self._bad = self._checkpoints = 0
        self._failed: tuple[int, str] | None = None
        self._not_finite: dict[str, int] = {}

    def add(self, event: Event) -> None:
        kind = event.get("kind")
        self._attempts = max(self._attempts, event.get("attempt", 1))
        if kind == "paused":
            self._pauses += 1
        elif kind == "command":
            applied = event.get("outcome") == "applied"
            self._applied, self._refused = self._applied + applied, self._refused + (not applied)
        elif kind == "checkpoint":
            self._checkpoints += 1
        elif kind == "checkpoint_bad":
            self._bad += 1
        elif kind == "failure":
            self._failed = (event.get("attempt", 1), f"{event.get('error')}: {event.get('reason')}")
        for name, value in _values(event).items():
            number = finite(value)
            if number is not None and not math.isfinite(number):
                self._not_finite.setdefault(name, event["step"])

    def section(self, loss: str | None) -> dict[str, Any]:
        """As a report has it; the loss has a section of its own."""
        return {
            "attempts": self._attempts,
            "pauses": self._pauses,
            "commands": self._applied + self._refused,
            "refused": self._refused,
            "checkpoints": self._checkpoints,
            "bad_checkpoints": self._bad,
            "failed": self._failed[1] if self._failed and self._failed[0] == self._attempts else None,
            "not_finite": {name: step for name, step in self._not_finite.items() if name != loss},
        }


def _values(event: Event) -> Mapping[str, Any]:
    """The figures of a metric event; none of any other, or of one that is damaged."""
    if event.get("kind") != "metric" or not isinstance(event.get("step"), int):
        return {}
    values = event.get("values")
    return values if isinstance(values, dict) else {}


def _is_training_loss(name: str) -> bool:
    return name.endswith("loss") and not any(word in name for word in _HELD_OUT)
