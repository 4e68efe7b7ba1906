"""Learning curves: loss, validation loss and reward over the steps of each stage that trains."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from clew.reports.document import Block, Figure, Mono, Note, Section
from clew.reports.formats import slug
from clew.reports.plots import Curves, Line
from clew.reports.series import Series
from clew.reports.stages import Stage

_MAX_OTHERS = 3


@dataclass(frozen=True)
class Kind:
    """A curve, under the names that different trainers give it."""

    title: str
    names: tuple[str, ...]
    y_label: str


# A policy's loss is no likelihood of a text, so it has no unit.
_FROM_TEXT = (
    Kind("training loss", ("loss",), "loss (nats per token)"),
    Kind("validation loss", ("val_loss", "eval_loss"), "loss (nats per token)"),
)
_FROM_REWARDS = (Kind("policy loss", ("loss",), "loss"), Kind("reward", ("reward",), "mean reward of a completion"))


def curves_section(stages: Sequence[Stage], *, of: str) -> Section:
    """Show the learning curves of every stage but the evaluations."""
    title = "Learning curves"
    training = [(place, stage) for place, stage in enumerate(stages, start=1) if not stage.is_evaluation]
    if not training:
        return Section(title, [Note(f"No learning curve: this {of} has no stage that trains.")])
    if of == "run":
        return Section(title, list(_stage_blocks(1, stages[0])))
    return Section(title, [Section(Mono(stage.name), list(_stage_blocks(place, stage))) for place, stage in training])


def _stage_blocks(place: int, stage: Stage) -> Iterator[Block]:
    if not stage.facts.series:
        reason = "this stage was not started" if stage.run is None else f"the run is {stage.state}"
        yield Note(f"No metric was journalled: {reason}.")
        return
    found = _found(stage)
    shown = {kind: series for kind, series in found.items() if series.last is not None}
    if shown:
        panels = [_panel(kind, series, stage) for kind, series in shown.items()]
        yield Figure(f"curves-{place}-{slug(stage.name)}", _caption(stage, shown), panels)
    yield from _remarks(stage, found)


def _expected(stage: Stage) -> tuple[Kind, ...]:
    return _FROM_REWARDS if stage.learns_from_rewards else _FROM_TEXT


def _found(stage: Stage) -> dict[Kind, Series]:
    """The curves that one expects of such a stage; of a job that logs none of them, the first others."""
    series = stage.facts.series
    known = {kind: series[name] for kind in _expected(stage) for name in kind.names if name in series}
    return known or {Kind(name, (name,), name): series[name] for name in list(series)[:_MAX_OTHERS]}


def _panel(kind: Kind, series: Series, stage: Stage) -> Curves:
    line = Line(kind.title, series.points())
    return Curves(kind.title, "optimizer step", kind.y_label, [line], stage.facts.resumed)


def _caption(stage: Stage, shown: Mapping[Kind, Series]) -> str:
    text = f"{stage.name}: {', '.join(kind.title for kind in shown)}."
    if stage.facts.resumed:
        text += f" Dotted: a later attempt went on from step {', '.join(map(str, stage.facts.resumed))}."
    if any(series.is_thinned for series in shown.values()):
        text += " Of long series the lowest and the highest point of each stretch are drawn."
    if any(series.not_finite for series in shown.values()):
        text += " Crosses: the value was not finite."
    return text


def _remarks(stage: Stage, found: Mapping[Kind, Series]) -> Iterator[Note]:
    for kind, series in found.items():
        if series.not_finite:
            points = "all" if series.last is None else str(series.not_finite)
            yield Note(
                f"{kind.title}: {points} of {series.count} points were not finite, "
                f"the first at step {series.first_not_finite}."
            )
    for kind in _expected(stage):
        if kind not in found:
            yield Note(f"No {kind.title} was journalled: the job logged no {' or '.join(kind.names)}.")
