"""What is known of a run that somebody looks at, read from its directory bit by bit and in bounded memory."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from clew.cli.progress import Progress, loading
from clew.cli.screen.kin import Kin, Relative
from clew.cli.screen.log_tail import LogTail
from clew.cli.screen.telling import Line, tell
from clew.cli.text import PREFERRED, clock, number
from clew.errors import ClewError
from clew.reports.formats import clean, clip, spoken, to_float
from clew.reports.series import Point, Series
from clew.runs import ACTIVE, Event, JournalTail, Run, State

BATCH = 10_000
"""Events that are read before there is another look: a long journal is seen to be read."""
_BUCKETS = 512
_METRICS, _LINES, _SAMPLES = 200, 200, 20
_TEXT = 600
_TOKENS = "tokens_per_second"


@dataclass(frozen=True)
class Sample:
    """A text that a model wrote: a rollout, or a generation of an evaluation."""

    step: int | None
    prompt: str
    completion: str
    scores: str


@dataclass(frozen=True)
class Look:
    """How a run stands, at one moment.

    Attributes:
        state: Its state, as somebody sees it from here.
        attempt: The number of its newest attempt.
        standing: How far it is and how quick, in a few words each.
        step: The finished steps.
        metrics: The last value of every metric.
        chosen: The metric that is drawn; empty while there is none.
        points: Its curve.
        lines: What has happened, the newest last.
        news: Those of them that are new since the last look.
        samples: The last texts, the newest first.
        log: The last lines that it printed.
        parent: The run that it was forked from.
        children: The runs that were forked from it.
        is_behind: Whether there is more to read already.
    """

    state: State
    attempt: int
    standing: tuple[str, ...]
    step: int
    metrics: Mapping[str, float]
    chosen: str
    points: tuple[Point, ...]
    lines: tuple[Line, ...]
    news: tuple[Line, ...]
    samples: tuple[Sample, ...]
    log: tuple[str, ...]
    parent: Relative | None
    children: tuple[Relative, ...]
    is_behind: bool


class Watched:
    """Reads a run. One thread looks; any may say which metric is to be drawn.

    Args:
        run: The run.
        batch: How many events to read at the most for a look.

    Attributes:
        wanted: The metric to draw; empty leaves the choice to what is there.
    """

    def __init__(self, run: Run, *, batch: int = BATCH) -> None:
        self.run = run
        self.wanted = ""
        self.progress = Progress()
        self._batch = batch
        self._tail = JournalTail(run.path / "journal")
        self._curves: dict[str, Series] = {}
        self._values: dict[str, float] = {}
        self._lines: deque[Line] = deque(maxlen=_LINES)
        self._samples: deque[Sample] = deque(maxlen=_SAMPLES)
        self._restored = 0
        self._log = LogTail()
        self._kin = Kin(run)

    def look(self) -> Look:
        """Read on, and say how the run stands."""
        state = self.run.state  # before the journal: what happened until the end is read then
        events = self._tail.poll(self._batch)
        news = tuple(self._take(events))
        attempt = self._attempt()
        chosen = self._chosen()
        return Look(
            state=state,
            attempt=attempt,
            standing=tuple(self._standing(state)),
            step=self.progress.step,
            metrics=dict(self._values),
            chosen=chosen,
            points=tuple(self._curves[chosen].points()) if chosen else (),
            lines=tuple(self._lines),
            news=news,
            samples=tuple(self._samples),
            log=self._log.read(self.run.log_path(attempt)),
            parent=self._kin.parent,
            children=self._kin.children(),
            is_behind=len(events) >= self._batch,
        )

    def _take(self, events: list[Event]) -> Iterator[Line]:
        """Count events in; those that are not as expected are left out, never fatal."""
        for event in events:
            try:
                self._count(event)
                line = tell(event)
            except (KeyError, TypeError, ValueError, AttributeError):
                continue
            if line is not None:
                self._lines.append(line)
                yield line

    def _count(self, event: Event) -> None:
        kind, step = event["kind"], event.get("step")
        if not isinstance(step, int | None):
            raise TypeError(step)
        self.progress.take(event)
        if kind == "restore" and event["rank"] == 0:
            self._restore(event["attempt"], int(event["step"]))
        elif kind == "metric" and event["rank"] == 0 and isinstance(step, int):
            self._add(step, event["values"])
        elif kind in ("rollout", "generation"):
            self._samples.appendleft(_sample(event))

    def _restore(self, attempt: int, step: int) -> None:
        """Forget what a later attempt does again; as for all who read a journal, its first ``restore`` counts."""
        if attempt <= self._restored:
            return
        self._restored = attempt
        for name, curve in self._curves.items():
            curve.cut(step)
            self._values[name] = curve.last[1] if curve.last else float("nan")
        kept = [one for one in self._samples if one.step is None or one.step <= step]
        self._samples = deque(kept, maxlen=_SAMPLES)

    def _add(self, step: int, values: Mapping[str, Any]) -> None:
        for given, value in values.items():
            figure = to_float(value)
            if figure is None:
                continue
            curve = self._curves.get(given)
            if curve is None:
                if len(self._curves) >= _METRICS:
                    continue
                curve = self._curves[given] = Series(_BUCKETS)
            curve.add(step, figure)
            self._values[given] = figure

    def _attempt(self) -> int:
        try:
            return self.run.states.read().attempt
        except (ClewError, OSError):
            return self.progress.attempt

    def _chosen(self) -> str:
        if self.wanted in self._curves:
            return self.wanted
        return next((name for name in PREFERRED if name in self._curves), next(iter(self._curves), ""))

    def _standing(self, state: State) -> Iterator[str]:
        progress = self.progress
        total = f"/{progress.total} ({progress.percent} %)" if progress.total else ""
        yield f"{progress.unit} {progress.step}{total}"
        if state in ACTIVE and progress.attempt and not progress.is_loaded:
            yield f"{loading(self.run.info.job)}, {clock(max(0.0, time.time() - progress.since))}"
        if state not in ACTIVE or progress.paused:
            return
        yield progress.speed
        if _TOKENS in self._values:
            yield f"{self._values[_TOKENS]:,.0f} tokens/s"
        yield progress.remaining


def _sample(event: Event) -> Sample:
    scores = {**(event.get("rewards") or {}), **(event.get("metrics") or {})}
    if event.get("reward") is not None:
        scores["reward"] = event["reward"]
    known = {str(name): to_float(value) for name, value in scores.items()}
    step = event.get("step")
    return Sample(
        step=step if isinstance(step, int) else None,
        prompt=clean(clip(spoken(event.get("prompt")), _TEXT)),
        completion=clean(clip(spoken(event.get("completion")), _TEXT)),
        scores=clean(", ".join(f"{name} {number(value)}" for name, value in known.items() if value is not None)),
    )
