"""The beginning of a report: one paragraph, and a table of the stages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from clew.reports.document import Column, Inline, Mono, Paragraph, Section, Strong, Table, Text
from clew.reports.formats import MISSING, difference, duration, moment, number
from clew.reports.results import Score, scores_of
from clew.reports.stages import Stage, evaluations_of, heading
from clew.runs import State

_MAX_METRICS = 4


def run_summary(stage: Stage) -> Paragraph:
    """Say in one paragraph what came of a run."""
    attempts = {None: "no attempt", 1: "1 attempt"}.get(stage.attempt, f"{stage.attempt} attempts")
    text: list[Inline] = [
        "The run ",
        Strong(stage.name),
        " of the job ",
        Mono(stage.job),
        f" is {stage.state} after {attempts}",
        f" and {duration(stage.seconds)} of work." if stage.seconds is not None else ".",
    ]
    metrics = stage.result.metrics if stage.result else {}
    for place, (name, value) in enumerate(list(metrics.items())[:_MAX_METRICS]):
        text += [", " if place else " It ended with ", Mono(name), f" {number(value)}"]
    return Paragraph([*text, "."] if metrics else text)


def pipeline_summary(title: str, stages: Sequence[Stage]) -> Paragraph:
    """Say in one paragraph what came of a pipeline: how far it got, and what it gained."""
    states = Counter(_state(stage) for stage in stages)
    done = states.pop(State.COMPLETED.value, 0)
    rest = "".join(f", {count} {state}" for state, count in states.items())
    seconds = [stage.seconds for stage in stages if stage.seconds is not None]
    share = f"all {done}" if done == len(stages) else f"{done} of {len(stages)}"
    text: list[Inline] = ["Of the pipeline ", Strong(title), f", {share} stages completed{rest}."]
    if seconds:
        text.append(f" Their runs took {duration(sum(seconds))} together.")
    return Paragraph([*text, *_gain(stages)])


def _gain(stages: Sequence[Stage]) -> list[Inline]:
    """From the first evaluation to the last, in the metric that changed most clearly, if they asked the same problems.

    Clear is a change that is large beside the intervals; better or worse makes no difference.
    """
    evaluations = [stage for stage in evaluations_of(stages) if stage.facts.evaluation.count]
    if len(evaluations) < 2:
        return []
    first, last = evaluations[0], evaluations[-1]
    if first.facts.evaluation.problems != last.facts.evaluation.problems:
        return []
    scores = scores_of(stages)
    earlier = {score.metric: score for score in scores if score.stage is first}
    pairs = [(earlier[score.metric], score) for score in scores if score.stage is last and score.metric in earlier]
    changes = [(pair, clear) for pair in pairs if (clear := _clearness(*pair)) is not None]
    if not changes:
        return []
    (before, after), _ = max(changes, key=lambda change: change[1])
    change = difference((after.value or 0.0) - (before.value or 0.0), in_percent=after.is_proportion)
    values = f": from {before.text} to {after.text} ({change}) on the same {number(after.count)} examples."
    names: list[Inline] = [" From ", Mono(first.name), " to ", Mono(last.name)]
    return [*names, " the clearest change is in ", Mono(after.metric), values]


def _clearness(before: Score, after: Score) -> float | None:
    """The change beside the widths of both intervals: 0 without them, None where a value is missing."""
    if before.value is None or after.value is None:
        return None
    if before.interval is None or after.interval is None:
        return 0.0
    width = before.interval[1] - before.interval[0] + after.interval[1] - after.interval[0]
    return abs(after.value - before.value) / width if width else 0.0


def stages_section(stages: Sequence[Stage], *, of: str) -> Section:
    """Show each stage: what it was, what came of it, where it ran."""
    columns = [
        Column(heading(of)),
        Column("job"),
        Column("state"),
        Column("attempts", numeric=True),
        Column("time", numeric=True),
        Column("created"),
        Column("target"),
        Column("where it ran"),
        Column("key metrics"),
    ]
    return Section("Stages" if of == "pipeline" else "Run", [Table(columns, [_row(stage) for stage in stages])])


def _row(stage: Stage) -> list[Text]:
    return [
        Mono(stage.name),
        Mono(stage.job),
        _state(stage),
        number(stage.attempt),
        duration(stage.seconds),
        moment(stage.info.created if stage.info else None),
        stage.info.target if stage.info else MISSING,
        _where(stage),
        _metrics(stage),
    ]


def _where(stage: Stage) -> str:
    platform, cpus = stage.environment.get("platform"), stage.environment.get("cpus")
    if platform is None:
        return MISSING
    return f"{platform}, {cpus} CPUs" if cpus is not None else str(platform)


def _metrics(stage: Stage) -> Text:
    metrics = list(stage.result.metrics.items()) if stage.result else []
    text: list[Inline] = []
    for place, (name, value) in enumerate(metrics[:_MAX_METRICS]):
        text += ["\n" if place else "", Mono(name), f" {number(value)}"]
    if len(metrics) > _MAX_METRICS:
        text.append(f"\nand {len(metrics) - _MAX_METRICS} more")
    return text or MISSING


def _state(stage: Stage) -> str:
    return "not started" if stage.state is None else stage.state.value
