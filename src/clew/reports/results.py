"""What the evaluations say: each metric after each stage, and by how much it rose."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clew.reports.document import Block, Column, Figure, Mono, Note, Paragraph, Section, Table, Text
from clew.reports.formats import MISSING, difference, number, percent, percent_range, to_float
from clew.reports.plots import Dot, Dots
from clew.reports.stages import Stage, evaluations_of, heading, predecessor
from clew.runs import State

_MAX_PANELS = 9


@dataclass(frozen=True)
class Score:
    """One metric of one evaluation."""

    stage: Stage
    metric: str
    value: float | None
    count: int | None
    """Examples to which the metric applies; None when they are not in the journal."""
    interval: tuple[float, float] | None
    is_proportion: bool

    @property
    def text(self) -> str:
        """The value, a proportion in percent."""
        return percent(self.value) if self.is_proportion else number(self.value)

    @property
    def interval_text(self) -> str:
        """The 95 % interval, of a proportion in percent."""
        if self.is_proportion or self.interval is None:
            return percent_range(self.interval)
        return f"{number(self.interval[0])} – {number(self.interval[1])}"


def scores_of(stages: Sequence[Stage]) -> list[Score]:
    """Return the metrics of all evaluations, from the examples where the journal holds them, else from the result.

    A metric is a proportion when it is one everywhere: a length that happens to be 1 in one evaluation is none.
    """
    evaluations = evaluations_of(stages)
    tallies = [item for stage in evaluations for item in stage.facts.evaluation.tallies.items()]
    no_shares = {name for name, tally in tallies if not tally.is_proportion}
    return [score for stage in evaluations for score in _scores(stage, no_shares)]


def _scores(stage: Stage, no_shares: Collection[str]) -> Iterator[Score]:
    evaluation = stage.facts.evaluation
    tallies = evaluation.tallies
    for name, tally in tallies.items():
        is_share = name not in no_shares
        noted = _noted_interval(stage, name)
        if evaluation.is_sampled:
            yield Score(stage, name, tally.mean, evaluation.count, noted, is_share)
        else:
            yield Score(stage, name, tally.mean, tally.count, noted or (tally.interval if is_share else None), is_share)
    for name, value in (stage.result.metrics if stage.result else {}).items():
        if name not in tallies and name != "count":
            yield Score(
                stage, name, value, None, _noted_interval(stage, name), _noted(stage, name).get("method") == "wilson"
            )


def _noted_interval(stage: Stage, metric: str) -> tuple[float, float] | None:
    """Return the interval that the evaluation itself worked out, which knows that answers to one problem are alike."""
    noted = _noted(stage, metric)
    low, high = to_float(noted.get("low")), to_float(noted.get("high"))
    return None if low is None or high is None else (low, high)


def _noted(stage: Stage, metric: str) -> Mapping[str, Any]:
    return stage.result.intervals.get(metric, {}) if stage.result else {}


def gain_of(score: Score, scores: Sequence[Score], stages: Sequence[Stage]) -> tuple[Score, float] | None:
    """Return the score to compare with and the difference to it; None when there is none that can be compared."""
    other = predecessor(score.stage, stages)
    for earlier in scores:
        if earlier.stage is other and earlier.metric == score.metric and None not in (earlier.value, score.value):
            return earlier, (score.value or 0.0) - (earlier.value or 0.0)
    return None


def results_section(stages: Sequence[Stage], *, of: str) -> Section:
    """Show the metrics of all evaluations.

    Args:
        stages: All stages.
        of: ``run`` or ``pipeline``.
    """
    title = "Metric after each stage" if of == "pipeline" else "Evaluation"
    evaluations = evaluations_of(stages)
    if not evaluations:
        return Section(title, [Note(f"No generation was scored: this {of} has no eval stage.")])
    scores = scores_of(stages)
    blocks: list[Block] = [*_remarks(evaluations, {score.stage.name for score in scores})]
    if scores:
        blocks += [scores_table(scores, stages, of=of), _legend(scores)]
        blocks += _figure(scores) if of == "pipeline" else []
    return Section(title, blocks)


def _remarks(evaluations: Sequence[Stage], scored: Collection[str]) -> Iterator[Note]:
    for stage in evaluations:
        if stage.run is None:
            yield Note([Mono(stage.name), " was not started, so it has no metrics."])
        elif stage.name not in scored:
            yield Note([Mono(stage.name), f" is {stage.state}, and its journal holds no scored generation."])
        elif stage.state is not State.COMPLETED:
            yield Note([Mono(stage.name), f" is {stage.state}: its metrics cover only the examples scored so far."])


def scores_table(scores: Sequence[Score], stages: Sequence[Stage], *, of: str) -> Table:
    """Show scores with their intervals, and by how much each rose since the evaluation before it."""
    columns = [
        Column(heading(of)),
        Column("metric"),
        Column("value", numeric=True),
        Column("95 % interval", numeric=True),
        Column("examples", numeric=True),
        Column("change", numeric=True),
    ]
    return Table(columns, [_row(score, gain_of(score, scores, stages)) for score in scores])


def _row(score: Score, gain: tuple[Score, float] | None) -> list[Text]:
    change: Text = MISSING
    if gain:
        shown = difference(gain[1], in_percent=score.is_proportion)
        change = [f"{shown} from ", Mono(gain[0].stage.name)]
    return [Mono(score.stage.name), Mono(score.metric), score.text, score.interval_text, number(score.count), change]


def _legend(scores: Sequence[Score]) -> Note:
    if not any(score.interval for score in scores):
        return Note("No interval is given: no metric is a proportion of examples that are in the journal.")
    text = (
        "Intervals of proportions are score intervals (E. B. Wilson, J. Am. Stat. Assoc. 22 (1927), 209–212), where "
        "every example scored 0 or 1. "
    )
    if any(score.interval and not score.is_proportion for score in scores):
        text += "Those of other metrics are percentile bootstrap intervals (B. Efron, Ann. Statist. 7 (1979), 1–26). "
    return Note(
        f"{text}They say how far the number of examples pins the value down, and nothing of other seeds. "
        "A change is given between evaluations of the very same examples."
    )


def _figure(scores: Sequence[Score]) -> list[Block]:
    names = list(dict.fromkeys(score.metric for score in scores))
    panels = [_panel(name, [score for score in scores if score.metric == name]) for name in names]
    panels = [panel for panel in panels if len(panel.rows) > 1]
    if not panels:
        return [Note("No figure: no metric was measured after more than one stage.")]
    hidden = len(panels) - _MAX_PANELS
    caption = "Each metric after each stage; bars are 95 % intervals."
    figure = Figure("metrics", caption, panels[:_MAX_PANELS])
    return [figure, Paragraph(f"{hidden} more metrics are in the table only.")] if hidden > 0 else [figure]


def _panel(name: str, scores: Sequence[Score]) -> Dots:
    shares = all(score.is_proportion for score in scores)
    scale = 100 if shares else 1
    rows = [
        Dot(
            score.stage.name,
            score.value * scale,
            score.text if shares else number(score.value),
            (score.interval[0] * scale, score.interval[1] * scale) if score.interval else None,
        )
        for score in scores
        if score.value is not None
    ]
    return Dots(name, "% of examples" if shares else "mean over examples", rows, (-12, 112) if shares else None)
