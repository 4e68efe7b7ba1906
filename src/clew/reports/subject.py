"""What a template can ask about a run or a pipeline: single figures, settings and times, as text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from clew.config import plain
from clew.config.problems import suggest_key
from clew.config.source import read_file
from clew.config.tree import Section, find, leaves
from clew.errors import UserError, did_you_mean
from clew.reports.formats import MISSING, duration, number
from clew.reports.results import Score, scores_of
from clew.reports.stages import Stage
from clew.runs import State


class Unknown(Exception):
    """What a placeholder asks for does not exist, and will not.

    Args:
        what: What is wrong, for people.
        hint: What may have been meant.
    """

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint


@dataclass(frozen=True)
class Pending:
    """What a placeholder asks for is not there yet.

    Args:
        stage: The stage or run that may bring it.
    """

    stage: Stage

    def __str__(self) -> str:
        state = "not started" if self.stage.state is None else self.stage.state.value
        return f"(pending: {self.stage.name} is {state})"


@dataclass(frozen=True)
class Subject:
    """What a report is about.

    Args:
        title: Name of the run or the pipeline.
        stages: Its stages; of a run, the run alone.
        of: ``run`` or ``pipeline``.
    """

    title: str
    stages: Sequence[Stage]
    of: str

    def stage(self, name: str) -> Stage:
        """Return the stage of that name.

        Raises:
            Unknown: If there is none.
        """
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise Unknown(f"there is no stage {name!r}", did_you_mean(name, [stage.name for stage in self.stages]))

    def split(self, argument: str, what: str) -> tuple[Stage, str]:
        """Take ``STAGE.NAME`` apart; of a run, all of it is the name.

        Raises:
            Unknown: If no stage is called so.
        """
        if not argument:
            raise Unknown(f"it does not say which {what}", f"write {self.usage(what)}")
        if self.of == "run":
            return self.stages[0], argument
        named = [stage for stage in self.stages if argument.startswith(f"{stage.name}.")]
        if named:
            stage = max(named, key=lambda one: len(one.name))
            return stage, argument[len(stage.name) + 1 :]
        known = [stage.name for stage in self.stages]
        guess = did_you_mean(argument.partition(".")[0], known)
        raise Unknown(f"{argument!r} begins with no stage of this pipeline", f"{guess} write {self.usage(what)}")

    def usage(self, what: str) -> str:
        """Return how something of a stage is called."""
        return what.upper() if self.of == "run" else f"STAGE.{what.upper()}"

    def state(self, argument: str) -> str:
        """Return the state of the run, or of the stage that is named."""
        if not argument and self.of == "pipeline":
            raise Unknown("a pipeline has a state for each stage", "write state:STAGE")
        stage = self.stage(argument) if argument else self.stages[0]
        return "not started" if stage.state is None else stage.state.value

    def time(self, argument: str) -> str | Pending:
        """Return the wall time of a stage, or of all that ran."""
        stages = [self.stage(argument)] if argument else self.stages
        seconds = [stage.seconds for stage in stages if stage.seconds is not None]
        return duration(sum(seconds)) if seconds else Pending(stages[0])

    def metric(self, argument: str) -> str | Pending:
        """Return a metric: of the result, of the examples scored so far, or the last that was journalled."""
        stage, name = self.split(argument, "metric")
        series = {name: number(one.last[1]) for name, one in stage.facts.series.items() if one.last}
        final = {name: number(value) for name, value in (stage.result.metrics if stage.result else {}).items()}
        scores = {score.metric: score.text for score in self._scores(stage)}
        return _known(stage, name, {**series, **final, **scores})

    def interval(self, argument: str) -> str | Pending:
        """Return the 95 % interval of a metric; a dash for a metric without one."""
        stage, name = self.split(argument, "metric")
        final = dict.fromkeys(stage.result.metrics if stage.result else (), MISSING)
        return _known(stage, name, {**final, **{score.metric: score.interval_text for score in self._scores(stage)}})

    def config(self, argument: str) -> str | Pending:
        """Return a value of a resolved config; a section as JSON."""
        stage, key = self.split(argument, "key")
        if stage.run is None:
            return Pending(stage)
        try:
            tree = read_file(stage.run.config_path)
        except UserError as error:
            raise Unknown(f"the config of {stage.name} cannot be read", error.one_line()) from error
        node = find(tree, key)
        if node is None:
            parent = find(tree, key.rpartition(".")[0])
            near = parent.items if isinstance(parent, Section) else ()
            prefix = key[: len(key) - len(key.rpartition(".")[2])]
            hint = suggest_key(key, [prefix + name for name in near], [name for name, _ in leaves(tree)])
            raise Unknown(f"the config of {stage.name} has no {key!r}", hint)
        return _spoken(plain(node))

    def _scores(self, stage: Stage) -> list[Score]:
        return [score for score in scores_of(self.stages) if score.stage is stage]


def _known(stage: Stage, name: str, values: dict[str, str]) -> str | Pending:
    if name in values:
        return values[name]
    if stage.state is State.COMPLETED:
        raise Unknown(f"{stage.name} has no metric {name!r}", did_you_mean(name, values) or "it has no metrics at all")
    return Pending(stage)


def _spoken(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
