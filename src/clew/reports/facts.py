"""What a journal says, read in one pass and in bounded memory."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from clew.errors import cause
from clew.reports.formats import clip, spoken, to_float
from clew.reports.series import MeanSeries, Series
from clew.reports.statistics import Tally
from clew.runs import Event

NUM_SAMPLES = 4
"""Generations that a report shows."""
_NUM_ROLLOUTS = 2
"""Rollouts that a report shows from each end of a run."""
_NUM_INTERVENTIONS = 200
_NUM_CHECKUPS = 12


@dataclass(frozen=True)
class Sample:
    """One text that a model generated."""

    id: str
    prompt: str
    completion: str
    reference: str
    scores: Mapping[str, float | None]
    step: int | None = None


@dataclass(frozen=True)
class Intervention:
    """A command, and what came of it."""

    step: int | None
    verb: str
    args: Mapping[str, Any]
    issuer: str
    outcome: str
    result: Mapping[str, Any]


@dataclass(frozen=True)
class Checkup:
    """One look at how a training was doing."""

    step: int
    word: str
    texts: tuple[str, ...]


@dataclass
class Evaluation:
    """The scored generations of a run."""

    count: int = 0
    tallies: dict[str, Tally] = field(default_factory=dict)
    problems: int = 0
    """Fingerprint of the set of example ids; it does not depend on their order."""
    samples: dict[int, Sample] = field(default_factory=dict)
    """The first ones by index, whatever the order in which they were generated."""
    is_sampled: bool = False
    """Whether problems were answered several times; their answers are then no independent examples."""

    def add(self, event: Event) -> None:
        """Count one generation."""
        scores = _scores(event.get("metrics"))
        for name, value in scores.items():
            if value is not None:
                self.tallies.setdefault(name, Tally()).add(value)
        if event.get("sample"):
            self.is_sampled = True
            return
        index = event.get("index")
        self._keep(index if isinstance(index, int) else self.count, event, scores)
        self.count += 1
        digest = hashlib.blake2b(str(event.get("id")).encode("utf-8", "replace"), digest_size=8).digest()
        self.problems = (self.problems + int.from_bytes(digest, "big")) % (1 << 64)

    def _keep(self, index: int, event: Event, scores: Mapping[str, float | None]) -> None:
        if len(self.samples) < NUM_SAMPLES or index < max(self.samples):
            self.samples[index] = _sample(event, scores)
        if len(self.samples) > NUM_SAMPLES:
            del self.samples[max(self.samples)]


@dataclass
class Rollouts:
    """The completions that a policy was rewarded for."""

    count: int = 0
    parts: dict[str, MeanSeries] = field(default_factory=dict)
    total: MeanSeries = field(default_factory=MeanSeries)
    first: list[Sample] = field(default_factory=list)
    last: deque[Sample] = field(default_factory=lambda: deque(maxlen=_NUM_ROLLOUTS))

    def add(self, event: Event) -> None:
        """Count one rollout."""
        self.count += 1
        step = event.get("step")
        scores = _scores(event.get("rewards"))
        if isinstance(step, int):
            for name, value in scores.items():
                self.parts.setdefault(name, MeanSeries()).add(step, value)
            self.total.add(step, to_float(event.get("reward")))
        kept = self.first if len(self.first) < _NUM_ROLLOUTS else self.last
        kept.append(_sample(event, {**scores, "reward": to_float(event.get("reward"))}))


@dataclass
class Facts:
    """Everything that a report takes from a journal."""

    series: dict[str, Series] = field(default_factory=dict)
    evaluation: Evaluation = field(default_factory=Evaluation)
    rollouts: Rollouts = field(default_factory=Rollouts)
    resumed: list[int] = field(default_factory=list)
    """Steps that later attempts went on from."""
    failures: list[tuple[int, str]] = field(default_factory=list)
    """Attempt and reason of each failure that a worker saw."""
    environment: dict[str, Any] = field(default_factory=dict)
    interventions: list[Intervention] = field(default_factory=list)
    """The first commands."""
    num_interventions: int = 0
    checkups: deque[Checkup] = field(default_factory=lambda: deque(maxlen=_NUM_CHECKUPS))
    """The last looks at the run's health."""
    health: Mapping[str, Any] | None = None
    """The newest report of it."""
    spans: dict[int, tuple[float, float]] = field(default_factory=dict)
    """Times of the first and the last event of each attempt, in Unix seconds."""

    @property
    def seconds(self) -> float | None:
        """Wall time of all attempts, as far as the journal shows it; None without events."""
        return sum(last - first for first, last in self.spans.values()) if self.spans else None

    def add(self, event: Event) -> None:
        """Take over one event; those that are not as expected are left out, never fatal."""
        self._add_time(event)
        kind, step = event.get("kind"), event.get("step")
        if kind == "metric" and event["rank"] == 0 and isinstance(step, int):
            for name, value in _scores(event.get("values")).items():
                if value is not None:
                    self.series.setdefault(name, Series()).add(step, value)
        elif kind == "generation":
            self.evaluation.add(event)
        elif kind == "rollout":
            self.rollouts.add(event)
        elif kind == "restore" and event["attempt"] > 1 and isinstance(step, int):
            self.resumed.append(step)
        elif kind == "failure":
            self.failures.append((event["attempt"], cause(str(event.get("error")), str(event.get("reason")))))
        elif kind == "command":
            self._add_command(event)
        elif kind == "health" and isinstance(step, int) and isinstance(event.get("report"), dict):
            self._add_checkup(step, event["report"])
        elif kind == "attempt" and isinstance(event.get("environment"), dict):
            self.environment = event["environment"]

    def _add_command(self, event: Event) -> None:
        self.num_interventions += 1
        if len(self.interventions) < _NUM_INTERVENTIONS:
            self.interventions.append(
                Intervention(
                    step=event["at"] if isinstance(event.get("at"), int) else None,
                    verb=str(event.get("verb")),
                    args=_mapping(event.get("args")),
                    issuer=str(event.get("issuer") or ""),
                    outcome=str(event.get("outcome")),
                    result=_mapping(event.get("result")),
                )
            )

    def _add_checkup(self, step: int, report: Mapping[str, Any]) -> None:
        findings = [one for one in report.get("findings") or () if isinstance(one, dict)]
        self.checkups.append(Checkup(step, str(report.get("verdict")), tuple(str(one.get("text")) for one in findings)))
        self.health = {**report, "step": step}

    def _add_time(self, event: Event) -> None:
        now = to_float(event.get("t"))
        if now is not None:
            first, last = self.spans.get(event["attempt"], (now, now))
            self.spans[event["attempt"]] = (min(first, now), max(last, now))


def read_facts(events: Iterable[Event]) -> Facts:
    """Read a journal once."""
    facts = Facts()
    for event in events:
        facts.add(event)
    return facts


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _scores(value: Any) -> dict[str, float | None]:
    return {str(name): to_float(item) for name, item in value.items()} if isinstance(value, dict) else {}


def _sample(event: Event, scores: Mapping[str, float | None]) -> Sample:
    step = event.get("step")
    return Sample(
        id=clip(spoken(event.get("id")), 80),
        prompt=clip(spoken(event.get("prompt"))),
        completion=clip(spoken(event.get("completion"))),
        reference=clip(spoken(event.get("reference"))),
        scores=scores,
        step=step if isinstance(step, int) else None,
    )
