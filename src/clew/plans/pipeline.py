"""A pipeline: stages in a graph. Each stage is a job's config; its references to other stages are the edges."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Any

from clew.config.tree import Leaf, Node, Section, Tree, plain, without
from clew.errors import ConfigError, did_you_mean
from clew.notify import NotifyConfig, read_notify
from clew.plans.conditions import Condition, read_condition
from clew.plans.policy import KEYS as POLICY_KEYS
from clew.plans.policy import Policy, read_policy
from clew.plans.references import references

KEYS = ("pipeline", "max_parallel", "stages", "extends", "notify", *POLICY_KEYS)
_STAGE_KEYS = ("after", "when", *POLICY_KEYS)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


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
        ConfigError: For unknown keys, references to stages that do not exist, and circles.
    """
    for key, node in tree.items.items():
        if key not in KEYS:
            raise ConfigError(f"unknown key {key!r}", where=node.origin.where, hint=did_you_mean(key, KEYS))
    section = tree.items.get("stages")
    if not isinstance(section, Section) or not section.items:
        raise ConfigError("a pipeline needs at least one stage under 'stages:'", where=tree.origin.where)
    name = str(_scalar(tree, "pipeline", "pipeline"))
    _check_names(name, section, tree)
    stages = {name: _stage(name, node, section, tree) for name, node in section.items.items()}
    return Pipeline(
        name=name,
        max_parallel=_max_parallel(tree),
        stages={name: stages[name] for name in _order(stages, tree)},
        tree=tree,
        notify=read_notify(tree.items.get("notify")),
    )


def _check_names(name: str, section: Section, tree: Tree) -> None:
    """Names become directories, so they must not lead out of the workspace."""
    places = [
        (name, tree.items.get("pipeline", tree).origin),
        *((key, node.origin) for key, node in section.items.items()),
    ]
    for word, origin in places:
        if not _NAME.fullmatch(word):
            raise ConfigError(
                f"{word!r} cannot be a name",
                where=origin.where,
                hint="names of pipelines and stages are made of letters, digits, '.', '_' and '-'",
            )


def _stage(name: str, node: Node, section: Section, tree: Tree) -> Stage:
    if not isinstance(node, Section):
        raise ConfigError(f"the stage {name!r} must be a job's config", where=node.origin.where)
    inputs = dict.fromkeys(stage for stage, _, origin in references(node) if _known(stage, section, origin.where))
    needs = dict(inputs)
    after, when = node.items.get("after"), node.items.get("when")
    for other in _names(after) if after else []:
        _known(other, section, after.origin.where if after else "")
        needs[other] = None
    return Stage(
        name,
        without(node, _STAGE_KEYS),
        tuple(needs),
        tuple(inputs),
        read_condition(when) if when is not None else None,
        read_policy(tree, node),
    )


def _known(stage: str, section: Section, where: str) -> bool:
    if stage not in section.items:
        raise ConfigError(f"there is no stage {stage!r}", where=where, hint=did_you_mean(stage, section.items))
    return True


def _names(node: Node) -> list[str]:
    value = plain(node)
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]


def _order(stages: Mapping[str, Stage], tree: Tree) -> list[str]:
    try:
        return list(TopologicalSorter({name: stage.needs for name, stage in stages.items()}).static_order())
    except CycleError as error:
        raise ConfigError(
            f"the stages wait for each other: {' -> '.join(reversed(error.args[1]))}", where=tree.origin.where
        ) from None


def _scalar(tree: Tree, key: str, default: Any) -> Any:
    node = tree.items.get(key)
    return node.value if isinstance(node, Leaf) else default


def _max_parallel(tree: Tree) -> int:
    value = _scalar(tree, "max_parallel", 1)
    if not isinstance(value, int) or value < 1:
        raise ConfigError(
            f"max_parallel must be a whole number of at least 1, not {value!r}",
            where=tree.items["max_parallel"].origin.where,
        )
    return value
