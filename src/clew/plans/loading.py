"""From a file (or a mapping) to a pipeline, through the same layers as a job's config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from clew.config import Tree, environment_layer, load_tree, merge, override_layer
from clew.config.layers import expanded, word_of
from clew.config.tree import Node, Section
from clew.notify import notify_layer
from clew.plans.pipeline import Pipeline, parse_pipeline


def load_pipeline(
    source: Path | Mapping[str, Any], overrides: Sequence[str] = (), *, environment: Path | None = None
) -> Pipeline:
    """Load a pipeline; the arguments are those of :func:`pipeline_tree`.

    Raises:
        ConfigError: For a file that cannot be read and a graph that makes no sense. The stages' configs are checked by
            :func:`clew.sources.check`, and when they start.
    """
    return parse_pipeline(pipeline_tree(source, overrides, environment=environment))


def pipeline_tree(
    source: Path | Mapping[str, Any], overrides: Sequence[str] = (), *, environment: Path | None = None
) -> Tree:
    """Merge all layers of a pipeline.

    Args:
        source: A file, or its content as a mapping.
        overrides: ``stages.sft.training.lr=1e-4`` and the like, from the command line.
        environment: The workspace's ``clew.yaml``; its part for a job lies over every stage with that job, and what it
            says under ``notify`` lies below the pipeline's own.

    Raises:
        ConfigError: For a file that cannot be read.
    """
    present = environment if environment is not None and environment.is_file() else None
    tree = _with_layers(load_tree(source), present)
    if present is not None and (around := notify_layer(present)) is not None:
        tree = merge(around, tree)
    spoken = override_layer(overrides)
    return tree if spoken is None else merge(tree, spoken)


def _with_layers(tree: Tree, environment: Path | None) -> Tree:
    """Lay every stage over what it extends, and the environment of its job over it."""
    stages = tree.items.get("stages")
    if not isinstance(stages, Section):
        return tree
    items: dict[str, Node] = {
        name: _with_stage_layers(stage, environment) if isinstance(stage, Section) else stage
        for name, stage in stages.items.items()
    }
    return replace(tree, items={**tree.items, "stages": replace(stages, items=items)})


def _with_stage_layers(stage: Section, environment: Path | None) -> Section:
    said = expanded(stage)
    around = environment_layer(environment, word_of(said, "job")) if environment else None
    return said if around is None else merge(said, around)
