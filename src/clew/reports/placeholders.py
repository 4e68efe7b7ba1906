"""The placeholders that there are. A new one is one entry of the table at the end."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from clew.errors import did_you_mean
from clew.reports.curves import curves_section
from clew.reports.document import Block, Figure, Note, Section
from clew.reports.failures import failures_section
from clew.reports.formats import number, slug
from clew.reports.live import commands_section, health_section
from clew.reports.overview import pipeline_summary, run_summary, stages_section
from clew.reports.plots import Curves, Line
from clew.reports.provenance import artifacts_section, environment_section
from clew.reports.results import Score, results_section, scores_of, scores_table
from clew.reports.rewards import rewards_section
from clew.reports.samples import samples_section
from clew.reports.subject import Pending, Subject, Unknown
from clew.reports.template import ESCAPE_HINT
from clew.runs import State

Filling = str | Pending | Sequence[Block]
"""Text within a line, what is missing still, or blocks that stand alone."""


@dataclass(frozen=True)
class Kind:
    """A kind of placeholder.

    Args:
        usage: How it is written, without the braces.
        summary: What it becomes, in a line.
        fill: Makes it, from what stands behind the colon.
        is_block: Whether it needs a line of its own.
    """

    usage: str
    summary: str
    fill: Callable[[Subject, str], Filling]
    is_block: bool = False

    @property
    def takes_argument(self) -> bool:
        """Say whether something may stand behind its name."""
        return ":" in self.usage


def _blocks(section: Callable[..., Section]) -> Callable[[Subject, str], Filling]:
    """A section of the usual report, whose heading is the template's."""
    return lambda subject, _: section(subject.stages, of=subject.of).blocks


def _summary(subject: Subject, _: str) -> Filling:
    if subject.of == "run":
        return [run_summary(subject.stages[0])]
    return [pipeline_summary(subject.title, subject.stages)]


def _table(subject: Subject, metric: str) -> Filling:
    """One metric after each stage: from the evaluations, and from the results of other stages."""
    if not metric:
        raise Unknown("it does not say which metric", "write table:METRIC")
    scores = scores_of(subject.stages)
    scored = {(score.stage.name, score.metric) for score in scores}
    scores += [
        Score(stage, name, value, None, None, False)
        for stage in subject.stages
        for name, value in (stage.result.metrics if stage.result else {}).items()
        if (stage.name, name) not in scored
    ]
    chosen = [score for score in scores if score.metric == metric]
    if chosen:
        return [scores_table(chosen, subject.stages, of=subject.of)]
    waiting = [stage for stage in subject.stages if stage.state is not State.COMPLETED]
    if waiting:
        return [Note(str(Pending(waiting[0])))]
    hint = did_you_mean(metric, {score.metric for score in scores})
    raise Unknown(f"no stage has a metric {metric!r}" if subject.of == "pipeline" else f"no metric {metric!r}", hint)


def _curve(subject: Subject, argument: str) -> Filling:
    stage, name = subject.split(argument, "metric")
    series = stage.facts.series.get(name)
    if series is not None and series.last is not None:
        panel = Curves(name, "step", "", [Line(name, series.points())], stage.facts.resumed)
        # Two names may become the same file name; their digests do not.
        digest = hashlib.blake2b(argument.encode("utf-8", "replace"), digest_size=4).hexdigest()
        caption = f"{stage.name}: {name}, {number(series.count)} points."
        if series.is_thinned:
            caption += " Of each stretch the lowest and the highest are drawn."
        return [Figure(f"curve-{slug(argument)[:40]}-{digest}", caption, [panel])]
    if stage.state is State.COMPLETED and series is None:
        raise Unknown(f"{stage.name} logged no {name!r}", did_you_mean(name, stage.facts.series) or "it logged nothing")
    return [Note(f"{name}: no point is finite." if series else str(Pending(stage)))]


_KINDS = (
    Kind("run", "name of the run or pipeline", lambda subject, _: subject.title),
    Kind("state[:STAGE]", "state of the run, or of a stage", Subject.state),
    Kind("time[:STAGE]", "wall time of all, or of a stage", Subject.time),
    Kind("metric:[STAGE.]NAME", "value of a metric", Subject.metric),
    Kind("interval:[STAGE.]NAME", "95 % interval of a metric", Subject.interval),
    Kind("config:[STAGE.]KEY", "value of the resolved config", Subject.config),
    Kind("summary", "what came of it, in a paragraph", _summary, True),
    Kind("results", "metrics after each stage, with intervals", _blocks(results_section), True),
    Kind("table:METRIC", "one metric after each stage", _table, True),
    Kind("stages", "stages with state, time and machine", _blocks(stages_section), True),
    Kind("curves", "learning curves", _blocks(curves_section), True),
    Kind("curve:[STAGE.]NAME", "curve of one journalled metric", _curve, True),
    Kind("rewards", "parts of the reward", _blocks(rewards_section), True),
    Kind("samples", "what the model wrote, before and after", _blocks(samples_section), True),
    Kind("commands", "what was done while it ran, and what came of it", _blocks(commands_section), True),
    Kind("health", "how the training was doing", _blocks(health_section), True),
    Kind("failures", "what failed, with the end of its log", _blocks(failures_section), True),
    Kind("environment", "versions and hardware", lambda subject, _: environment_section(subject.stages).blocks, True),
    Kind("artifacts", "what was published, with hashes", _blocks(artifacts_section), True),
)
KINDS: Mapping[str, Kind] = MappingProxyType({kind.usage.partition(":")[0].partition("[")[0]: kind for kind in _KINDS})
"""By name."""


def is_block(name: str) -> bool:
    """Say whether a placeholder becomes tables or figures, which need a line of their own."""
    return name in KINDS and KINDS[name].is_block


def fill(name: str, argument: str, subject: Subject) -> Filling:
    """Return what a placeholder becomes.

    Raises:
        Unknown: If there is no such placeholder, or what it asks for does not exist.
    """
    if name not in KINDS:
        raise Unknown("there is no such placeholder", f"{did_you_mean(name, KINDS)}; {ESCAPE_HINT}")
    if argument and not KINDS[name].takes_argument:
        raise Unknown("it takes nothing behind a colon", f"write {{{{ {name} }}}}")
    return KINDS[name].fill(subject, argument)
