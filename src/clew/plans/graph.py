"""A pipeline as a picture: which stage needs which, and how each stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from clew.config.layers import word_of
from clew.plans.executor import latest_runs
from clew.plans.pipeline import Pipeline
from clew.plans.storage import Plan
from clew.runs import Workspace

PLANNED, WAITING, SKIPPED = "", "waiting", "skipped"


@dataclass(frozen=True)
class Box:
    """A stage in the picture."""

    name: str
    job: str
    state: str
    """How it stands, such as ``completed``; empty for a stage that nobody has started."""
    when: str
    """Its condition; empty without one."""
    inputs: tuple[str, ...]
    """The stages whose outputs it takes."""
    after: tuple[str, ...]
    """The stages that it only waits for."""
    column: int
    """How many stages stand one after the other before it."""

    @property
    def lines(self) -> list[str]:
        """What is written into the box."""
        return [self.name, self.job, *([f"if {self.when}"] if self.when else []), *([self.state] if self.state else [])]


@dataclass(frozen=True)
class Graph:
    """The picture of a pipeline; boxes stand in an order in which the stages can run."""

    name: str
    boxes: tuple[Box, ...]

    @property
    def columns(self) -> list[list[Box]]:
        """The boxes by column, from left to right."""
        last = max(box.column for box in self.boxes)
        return [[box for box in self.boxes if box.column == number] for number in range(last + 1)]


def graph_of(pipeline: Pipeline, states: Mapping[str, str] | None = None) -> Graph:
    """Lay a pipeline out: each stage stands right of everything that it needs.

    Args:
        pipeline: The stages.
        states: How they stand; a stage that is missing was not started.
    """
    column: dict[str, int] = {}
    boxes = []
    for stage in pipeline.stages.values():
        column[stage.name] = 1 + max((column[name] for name in stage.needs), default=-1)
        boxes.append(
            Box(
                name=stage.name,
                job=Path(word_of(stage.tree, "job")).name,  # a job in a file is known by its file's name
                state=(states or {}).get(stage.name, PLANNED),
                when=stage.when.text if stage.when else "",
                inputs=stage.inputs,
                after=tuple(name for name in stage.needs if name not in stage.inputs),
                column=column[stage.name],
            )
        )
    return Graph(pipeline.name, tuple(boxes))


def states_of(plan: Plan, workspace: Workspace) -> dict[str, str]:
    """Return how the stages of a plan stand that was started, skipped, or waits for an answer."""
    return {
        **{stage: run.state.value for stage, run in latest_runs(plan, workspace).items()},
        **dict.fromkeys(plan.skipped(), SKIPPED),
        **dict.fromkeys(plan.questions(), WAITING),
    }
