"""What went wrong, with the last lines of the log."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict

from clew.errors import is_for_people
from clew.logs.redaction import Redactor
from clew.reports.document import Block, Code, Mono, Note, Paragraph, Section, Strong
from clew.reports.stages import Stage
from clew.runs import Failure, State

_LOG_LINES = 20
_ENDINGS = {
    State.FAILED: "The run failed",
    State.STOPPED: "The run was stopped",
    State.INTERRUPTED: "The run was interrupted",
    State.UNKNOWN: "The run does not answer",
}
_NO_ERRORS = ("stopped", "interrupted")


def failures_section(stages: Sequence[Stage], *, of: str) -> Section:
    """Show why each stage that did not complete did not, and what earlier attempts ran into."""
    troubled = [stage for stage in stages if stage.failure or _earlier(stage)]
    if not troubled:
        what = "No stage failed." if of == "pipeline" else "The run did not fail."
        return Section("Failures", [Note(what)])
    if of == "run":
        return Section("Failures", list(_blocks(stages[0])))
    return Section("Failures", [Section(Mono(stage.name), list(_blocks(stage))) for stage in troubled])


def _earlier(stage: Stage) -> list[tuple[int, str]]:
    found = [(attempt, reason) for attempt, reason in stage.facts.failures if attempt < (stage.attempt or 0)]
    redactor = Redactor.of()  # also for runs whose logs were written without a filter
    return [(attempt, redactor.text(reason)) for attempt, reason in found]


def _blocks(stage: Stage) -> Iterator[Block]:
    for attempt, reason in _earlier(stage):
        yield Paragraph([f"Attempt {attempt} failed: ", Mono(reason)])
    if stage.failure is None:
        yield Note(f"A later attempt went on; the run is {stage.state}.")
        return
    failure = Failure(**Redactor.of().tree(asdict(stage.failure)))
    yield Paragraph([f"{_ENDINGS[stage.state or State.UNKNOWN]}: ", *_reason(failure)])
    if failure.log_tail:
        tail = failure.log_tail[-_LOG_LINES:]
        yield Paragraph(f"The last {len(tail)} lines of its log:" if len(tail) > 1 else "The last line of its log:")
        yield Code("\n".join(tail))
    else:
        yield Note("No log line was kept.")


def _reason(failure: Failure) -> list[Strong | Mono | str]:
    if failure.kind in _NO_ERRORS or is_for_people(failure.kind):
        return [Mono(failure.reason)]
    return [Strong(failure.kind), " ", Mono(failure.reason)]
