"""The beginning of a report: one paragraph, and a table of the stages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from clew.reports.document import Column, Inline, Mono, Paragraph, Section, Strong, Table, Text
from clew.reports.formats import MISSING, difference, duration, moment, number
from clew.reports.results import scores_of
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
    """From the first evaluation to the last, in the first metric that both have, if they asked the same problems."""
    evaluations = [stage for stage in evaluations_of(stages) if stage.facts.evaluation.count]
    if (
        len(evaluations) < 2
        or len({stage.facts.evaluation.problems for stage in (evaluations[0], evaluations[-1])}) > 1
    ):
        return []
    scores = scores_of(stages)
    earlier = {score.metric: score for score in scores if score.stage is evaluations[0]}
    for score in scores:
        before = earlier.get(score.metric)
        if score.stage is evaluations[-1] and before and before.value is not None and score.value is not None:
            change = difference(score.value - before.value, in_percent=score.is_proportion)
            values = f" went from {before.text} to {score.text} ({change}) on the same {number(score.count)} examples."
            return [" From ", Mono(before.stage.name), " to ", Mono(score.stage.name), ", ", Mono(score.metric), values]
    return []


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
