"""A pipeline: stages in a graph. Each stage is a job's config; its references to other stages are the edges."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Any

from clew.config.problems import Problems
from clew.config.tree import Node, Section, Tree, without
from clew.errors import ConfigError, did_you_mean
from clew.notify import NotifyConfig
from clew.plans.conditions import Condition, read_condition
from clew.plans.head import STAGE_KEYS, PipelineHead, StageHead, load_head, load_stage_head
from clew.plans.policy import Policy
from clew.plans.references import references
from clew.runs.ids import NAME, NAME_IN_WORDS


@dataclass(frozen=True)
class Stage:
    """One job of a pipeline."""

    name: str
    tree: Tree
    """The job's config, with references."""
    needs: tuple[str, ...]
    """The stages that must be over before, in the order of the file."""
    inputs: tuple[str, ...] = ()
    """Those of them that the stage refers to; it only stands ``after`` the others."""
    when: Condition | None = None
    """Without it, the stage runs in any case."""
    policy: Policy = field(default_factory=Policy)
    """What happens when it fails."""


@dataclass(frozen=True)
class Pipeline:
    """Stages by name, in an order in which they can run."""

    name: str
    max_parallel: int
    stages: Mapping[str, Stage]
    tree: Tree
    notify: NotifyConfig = field(default_factory=NotifyConfig)
    """Who is told when something fails, waits or is over."""

    def said(self, stage: str) -> Tree:
        """Return all that is said of a stage, what stands beside its job's config included."""
        stages = self.tree.items["stages"]
        assert isinstance(stages, Section)
        section = stages.items[stage]
        assert isinstance(section, Section)
        return section

    def dependants(self, name: str) -> list[str]:
        """Return a stage and all that need it, directly or not.

        Raises:
            ConfigError: If there is no such stage.
        """
        if name not in self.stages:
            raise ConfigError(f"there is no stage {name!r}", where=self.name, hint=did_you_mean(name, self.stages))
        found = {name}
        for stage in self.stages.values():  # in an order in which they can run
            if found.intersection(stage.needs):
                found.add(stage.name)
        return [stage for stage in self.stages if stage in found]


def is_pipeline(tree: Mapping[str, Any] | Tree) -> bool:
    """Say whether a config describes a pipeline rather than a job."""
    items = tree.items if isinstance(tree, Section) else tree
    return "stages" in items and "job" not in items


def parse_pipeline(tree: Tree) -> Pipeline:
    """Build the graph.

    Raises:
        ConfigError: With all unknown keys, values that do not fit and references to stages that do not exist; for
            circles.
    """
    section = tree.items.get("stages")
    if not isinstance(section, Section) or not section.items:
        raise ConfigError("a pipeline needs at least one stage under 'stages:'", where=tree.origin.where)
    problems, stages = Problems(), dict[str, Stage]()
    head, around = PipelineHead(), Section({}, tree.origin)
    with problems.gathering():
        head, around = load_head(tree).value, tree
    _check_names(head.pipeline, section, tree, problems)
    for name, node in section.items.items():
        with problems.gathering():
            stages[name] = _stage(name, node, section, around, problems)
    problems.raise_if_any("the pipeline", where=head.pipeline)
    return Pipeline(
        name=head.pipeline,
        max_parallel=head.max_parallel,
        stages={name: stages[name] for name in _order(stages, tree)},
        tree=tree,
        notify=head.notify or NotifyConfig(),
    )


def _check_names(name: str, section: Section, tree: Tree, problems: Problems) -> None:
    """Names become directories, so they must not lead out of the workspace."""
    places = [
        (name, tree.items.get("pipeline", tree).origin),
        *((key, node.origin) for key, node in section.items.items()),
    ]
    for word, origin in places:
        if not re.fullmatch(NAME, word):
            problems.add(f"{word!r} cannot be a name", origin.where, f"a name is made of {NAME_IN_WORDS}")


def _stage(name: str, node: Node, section: Section, around: Tree, problems: Problems) -> Stage:
    if not isinstance(node, Section):
        raise ConfigError(f"the stage {name!r} must be a job's config", where=node.origin.where)
    inputs: dict[str, None] = {}
    for other, _, origin in references(node):
        inputs[other] = None
        _check_known(other, section, origin.where, problems)
    head: StageHead = load_stage_head(around, node).value
    after = [head.after] if isinstance(head.after, str) else head.after
    for other in after:
        _check_known(other, section, node.items["after"].origin.where, problems)
    when = node.items.get("when")
    return Stage(
        name,
        without(node, STAGE_KEYS),
        tuple(dict.fromkeys([*inputs, *after])),
        tuple(inputs),
        read_condition(when) if when is not None and head.when is not None else None,
        Policy(on_failure=head.on_failure, retry=head.retry),
    )


def _check_known(stage: str, section: Section, where: str, problems: Problems) -> None:
    if stage not in section.items:
        problems.add(f"there is no stage {stage!r}", where, did_you_mean(stage, section.items))


def _order(stages: Mapping[str, Stage], tree: Tree) -> list[str]:
    try:
        return list(TopologicalSorter({name: stage.needs for name, stage in stages.items()}).static_order())
    except CycleError as error:
        raise ConfigError(
            f"the stages wait for each other: {' -> '.join(reversed(error.args[1]))}", where=tree.origin.where
        ) from None
