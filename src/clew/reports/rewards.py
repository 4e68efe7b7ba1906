"""Of what the reward was made: the mean of each part over the steps, from the rollouts themselves."""

from __future__ import annotations

from collections.abc import Sequence

from clew.reports.document import Block, Column, Figure, Mono, Note, Section, Table, Text
from clew.reports.formats import number, slug
from clew.reports.plots import Curves, Line
from clew.reports.series import MeanSeries
from clew.reports.stages import Stage


def rewards_section(stages: Sequence[Stage], *, of: str) -> Section:
    """Show the parts of the reward of each stage that has rollouts."""
    title = "Rewards"
    rewarded = [(place, stage) for place, stage in enumerate(stages, start=1) if stage.facts.rollouts.count]
    if rewarded:
        several = len(rewarded) > 1
        sections = [Section(Mono(stage.name), _blocks(place, stage)) for place, stage in rewarded]
        return Section(title, sections if several else sections[0].blocks)
    learners = [stage.name for stage in stages if stage.job == "grpo"]
    if not learners:
        return Section(title, [Note(f"No reward was journalled: this {of} has no GRPO stage.")])
    return Section(title, [Note(["No reward was journalled: ", Mono(", ".join(learners)), " made no rollout."])])


def _blocks(place: int, stage: Stage) -> list[Block]:
    rollouts = stage.facts.rollouts
    parts = {name: series for name, series in rollouts.parts.items() if series.count}
    blocks: list[Block] = [_table({**rollouts.parts, "reward": rollouts.total})]
    if any(series.missing for series in rollouts.parts.values()):
        blocks.append(Note("A part that gave no score for a completion is left out of that part's mean."))
    if not parts:
        return [*blocks, Note("No figure: no part of the reward gave a score.")]
    lines = [Line(name, series.points()) for name, series in parts.items()]
    panel = Curves("parts of the reward", "optimizer step", "mean score of a completion", lines, stage.facts.resumed)
    caption = f"{stage.name}: each part of the reward, before it is weighted; mean over the completions of a step."
    return [*blocks, Figure(f"rewards-{place}-{slug(stage.name)}", caption, [panel])]


def _table(series: dict[str, MeanSeries]) -> Table:
    columns = [
        Column("part"),
        Column("first tenth of the steps", numeric=True),
        Column("last tenth of the steps", numeric=True),
        Column("scored", numeric=True),
        Column("not scored", numeric=True),
    ]
    return Table(columns, [_row(name, one) for name, one in series.items()])


def _row(name: str, series: MeanSeries) -> list[Text]:
    tenth = max(1, len(series.points()) // 10)
    first, last = series.mean(slice(0, tenth)), series.mean(slice(-tenth, None))
    return [Mono(name), number(first), number(last), number(series.count), number(series.missing)]
