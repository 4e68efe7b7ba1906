"""Whether two runs are the same: their figures and the hashes of their states, step by step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from clew.runs import Event, Run

_CLOCKS = ("second", "time", "runtime", "_per_s", "throughput")
"""Parts of the names of figures that tell how quick a run was, and not what it did."""

_ABOUT = ("t", "kind", "attempt", "rank", "step")


@dataclass
class Course:
    """What a run did in each step, without what depends on the clock.

    Attributes:
        metrics: Step to name to value.
        digests: Step to name to hash.
    """

    metrics: dict[int, dict[str, Any]] = field(default_factory=dict)
    digests: dict[int, dict[str, str]] = field(default_factory=dict)

    def take(self, event: Event) -> None:
        """Count one event in."""
        step = event.get("step")
        if not isinstance(step, int):
            return
        if event["kind"] == "metric":
            self.metrics.setdefault(step, {}).update(without_clocks(event["values"]))
        elif event["kind"] == "digest":
            self.digests.setdefault(step, {}).update({k: v for k, v in event.items() if k not in _ABOUT})

    @classmethod
    def of(cls, events: Iterable[Event]) -> Course:
        """Build from a run's events as they count now."""
        course = cls()
        for event in events:
            course.take(event)
        return course


@dataclass(frozen=True)
class Difference:
    """The first thing in which two runs differ.

    Attributes:
        step: Where.
        name: The figure, or the part of the state.
        first: The value of the one.
        second: The value of the other.
    """

    step: int
    name: str
    first: Any
    second: Any

    def __str__(self) -> str:
        return f"step {self.step}: {self.name} is {_shown(self.first)} in one and {_shown(self.second)} in the other"


@dataclass(frozen=True)
class Comparison:
    """What came of a comparison.

    Attributes:
        difference: The first one; None when all that both have is the same, bit by bit.
        steps: The last step that was compared.
        values: How many figures were compared.
        digests: How many states were.
    """

    difference: Difference | None
    steps: int
    values: int
    digests: int

    @property
    def is_conclusive(self) -> bool:
        """Whether anything at all was compared."""
        return self.values + self.digests > 0


def without_clocks(values: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the figures that tell how quick a run was."""
    return {name: value for name, value in values.items() if not any(clock in name for clock in _CLOCKS)}


def compare(first: Run, second: Run) -> Comparison:
    """Compare two runs as far as both have gone."""
    return compare_courses(Course.of(first.events("metric", "digest")), Course.of(second.events("metric", "digest")))


def compare_courses(first: Course, second: Course, *, after: int = 0) -> Comparison:
    """Compare what two runs did in the steps of which both tell.

    Figures that only one of them has are left out: how often something is logged, saved or measured changes nothing.

    Args:
        first: The one.
        second: The other.
        after: Leave out the steps up to here.
    """
    values = digests = last = 0
    for step, name, one, other in _pairs(first, second):
        if step <= after:
            continue
        if one != other and not (one != one and other != other):  # NaN differs from itself
            return Comparison(Difference(step, name, one, other), last, values, digests)
        last = step
        if name.startswith("state "):
            digests += 1
        else:
            values += 1
    return Comparison(None, last, values, digests)


def _pairs(first: Course, second: Course) -> Iterator[tuple[int, str, Any, Any]]:
    steps = sorted({*first.metrics, *first.digests} & {*second.metrics, *second.digests})
    for step in steps:
        for name, value in first.metrics.get(step, {}).items():
            if name in second.metrics.get(step, {}):
                yield step, name, value, second.metrics[step][name]
        for name, value in first.digests.get(step, {}).items():
            if name in second.digests.get(step, {}):
                yield step, f"state {name}", value, second.digests[step][name]


def _shown(value: Any) -> str:
    return value[:12] if isinstance(value, str) else repr(value)
