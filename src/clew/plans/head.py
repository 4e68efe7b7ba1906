"""What a pipeline says beside the configs of its jobs; the loader and the JSON schema both read these classes."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, WithJsonSchema

from clew.config import IN_WORDS, Loaded, config, fields_of, load, merge
from clew.config.tree import Section, Tree
from clew.notify import NotifyConfig
from clew.plans.policy import Policy
from clew.runs.ids import NAME, NAME_IN_WORDS

_SPELLING = {"type": "string", "pattern": f"^{NAME}$", IN_WORDS: f"made of {NAME_IN_WORDS}"}


@config
class PipelineHead(Policy):
    """What a pipeline says beside its stages; the policy is that of each stage that says none."""

    pipeline: Annotated[str, WithJsonSchema(_SPELLING)] = "pipeline"
    """The pipeline's name in its workspace; a file that says none has the name of the file."""
    max_parallel: Annotated[int, Field(ge=1)] = 1
    """How many stages may run at the same time."""
    notify: NotifyConfig | None = None
    """Who is told of failures, of questions and of the end; null tells nobody, whatever the workspace says."""


@config
class StageHead(Policy):
    """What a stage says beside its job's config; the policy is the pipeline's where it says none."""

    after: list[str] | str = Field(default_factory=list)
    """Stages that must be over before, besides those that it refers to."""
    when: str | bool | None = None
    """Run the stage only where this holds, such as ${eval.metrics.exact} < 0.9; null is always."""


HEAD_KEYS = tuple(fields_of(PipelineHead))
STAGE_KEYS = tuple(fields_of(StageHead))
KEYS = ("extends", *HEAD_KEYS, "stages")
SWEEP_KEYS = tuple(key for key in HEAD_KEYS if key != "pipeline")
"""What a sweep says about the pipeline that it becomes."""


def load_head(tree: Tree) -> Loaded:
    """Read what a pipeline says beside its stages: a :class:`PipelineHead`.

    Raises:
        ConfigError: With all problems and their places.
    """
    return load(tree, root=PipelineHead, reserved=("extends", "stages"))


def load_stage_head(pipeline: Tree, stage: Tree) -> Loaded:
    """Read what a stage says beside its job's config: a :class:`StageHead`, its policy laid over that of its pipeline.

    Raises:
        ConfigError: With all problems and their places.
    """
    said = merge(_cut(pipeline, tuple(fields_of(Policy))), _cut(stage, STAGE_KEYS))
    return load(said, root=StageHead, reserved=())


def _cut(tree: Tree, keys: tuple[str, ...]) -> Tree:
    return Section({key: tree.items[key] for key in keys if key in tree.items}, tree.origin)
