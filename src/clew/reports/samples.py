"""What the model wrote: the same problems before and after, or the first and the last rollouts."""

from __future__ import annotations

from collections.abc import Sequence

from clew.reports.document import Block, Column, Inline, Mono, Note, Section, Table, Text
from clew.reports.facts import Sample
from clew.reports.formats import number
from clew.reports.stages import Stage, evaluations_of


def samples_section(stages: Sequence[Stage], *, of: str) -> Section:
    """Show a few generations; which ones is decided by their place, not by how good they are."""
    title = "Samples"
    evaluations = [stage for stage in evaluations_of(stages) if stage.facts.evaluation.samples]
    learners = [stage for stage in stages if stage.facts.rollouts.count]
    if evaluations:
        return Section(title, _generations(evaluations))
    if learners:
        return Section(title, _rollouts(learners[-1]))
    return Section(title, [Note(f"No generation was journalled: this {of} has no eval and no GRPO stage.")])


def _generations(evaluations: Sequence[Stage]) -> list[Block]:
    first, last = evaluations[0], evaluations[-1]
    before, after = _by_id(first), _by_id(last)
    shared = [name for name in before if name in after]
    if first is last:
        return [
            Note(["The first examples of ", Mono(last.name), ", as the task orders them."]),
            _table(last.name, after),
        ]
    if not shared:
        remark: Text = [Mono(first.name), " and ", Mono(last.name), " have none of their first examples in common."]
        return [Note(remark), _table(first.name, before), _table(last.name, after)]
    rows: list[list[Text]] = [
        [_answer(before[name].prompt), _answer(before[name].reference), _scored(before[name]), _scored(after[name])]
        for name in shared
    ]
    columns = [Column("prompt"), Column("reference"), Column(Mono(first.name)), Column(Mono(last.name))]
    note: Text = ["The first examples that ", Mono(first.name), " and ", Mono(last.name), " have in common."]
    return [Note(note), Table(columns, rows)]


def _by_id(stage: Stage) -> dict[str, Sample]:
    samples = stage.facts.evaluation.samples
    return {samples[index].id: samples[index] for index in sorted(samples)}


def _table(name: str, samples: dict[str, Sample]) -> Table:
    rows = [[_answer(one.prompt), _answer(one.reference), _scored(one)] for one in samples.values()]
    return Table([Column("prompt"), Column("reference"), Column(Mono(name))], rows)


def _rollouts(stage: Stage) -> list[Block]:
    rollouts = stage.facts.rollouts
    rows: list[list[Text]] = [
        [number(one.step), _answer(one.prompt), _scored(one)] for one in [*rollouts.first, *rollouts.last]
    ]
    columns = [Column("step", numeric=True), Column("prompt"), Column("completion")]
    return [Note(["The first and the last rollouts of ", Mono(stage.name), "."]), Table(columns, rows)]


def _scored(sample: Sample) -> list[Inline]:
    text: list[Inline] = [_answer(sample.completion), "\n"]
    for place, (name, value) in enumerate(sample.scores.items()):
        text.append(f"{', ' if place else ''}{name} {number(value)}")
    return text


def _answer(text: str) -> Inline:
    return Mono(text) if text.strip() else "(empty)" if not text else f"({len(text)} blank characters)"
