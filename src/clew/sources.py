"""What can be run: a file, a mapping, a config object, or a pipeline that was built in Python."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clew.builder import Pipeline, as_mapping
from clew.config import Tree, leaves, load_tree, load_tree_with_presets, merge, plain, swept
from clew.config.layers import word_of
from clew.config.problems import Problems
from clew.config.tree import Leaf, Section, without
from clew.errors import ClewError, ConfigError, UserError
from clew.jobs import JobConfig, LoadedJob, load_job
from clew.jobs.environment import check_environment
from clew.jobs.loading import check_same_job, config_below, job_of
from clew.jobs.settling import settled
from clew.notify import notify_layer
from clew.plans import Pipeline as PipelineGraph
from clew.plans import is_pipeline, parse_pipeline, pipeline_tree
from clew.plans.head import STAGE_KEYS, SWEEP_KEYS
from clew.plans.references import references, resolve_references, sample_value
from clew.runs import Workspace

Work = LoadedJob | PipelineGraph
"""What a source turns out to be, ready to be started."""


Source = Path | str | Mapping[str, Any] | JobConfig | Pipeline
"""A file, its content, a job's config as an object, or a pipeline."""


def read(
    source: Source, overrides: Sequence[str] = (), *, workspace: Workspace, name: str = "", below: str = ""
) -> Work:
    """Load a job or a pipeline.

    Args:
        source: What to run.
        overrides: ``key=value``, over everything else.
        workspace: Its ``clew.yaml`` is a layer of every job's config.
        name: The name of the run or the pipeline; empty leaves what the config says. A pipeline that says nothing is
            called like its file.
        below: A run of the workspace, or a file, whose config lies below that of a job.

    Raises:
        ConfigError: With every problem that the config has.
        UserError: If there is no such run or file to lie below, or this is a pipeline.
    """
    check_environment(workspace.environment)
    said = _said(source)
    tree = load_tree(said)
    if not is_pipeline(tree):
        named = [f"name={json.dumps(name)}"] if name else []
        under = config_below(below, workspace.runs) if below else None
        whole = load_tree(said, overrides=overrides, environment=workspace.environment, below=under)
        if "sweep" in whole.items:
            name = name or word_of(whole, "name") or (said.stem if isinstance(said, Path) else "sweep")
            if under is not None:
                whole = _with_presets(said, overrides, workspace, whole, under)
            return _sweep(whole, name, workspace.environment)
        loaded = load_job(said, [*overrides, *named], environment=workspace.environment, below=under)
        return settled(loaded, workspace.runs)
    if below:
        raise UserError("a pipeline has no single config that could lie above another", where=f"--from {below}")
    if isinstance(said, Path) and "pipeline" not in tree.items:
        name = name or said.stem  # two nameless pipelines in one workspace are not the same one
    named = [f"pipeline={json.dumps(name)}"] if name else []
    return _pipeline(pipeline_tree(said, [*overrides, *named], environment=workspace.environment))


def _pipeline(tree: Tree) -> PipelineGraph:
    """Build the graph; where it makes no sense, the problems of the stages' own configs are told with its own."""
    try:
        return parse_pipeline(tree)
    except ConfigError as error:
        problems = Problems()
        problems.take(error)
        stages = tree.items["stages"]
        for stage in stages.items.values() if isinstance(stages, Section) else ():
            if isinstance(stage, Section):
                with problems.gathering():
                    load_job(resolve_references(without(stage, STAGE_KEYS), sample_value))
        if len(problems.found) == 1:
            raise
        problems.raise_if_any("the pipeline", where=word_of(tree, "pipeline"))
        raise


def _sweep(tree: Tree, name: str, environment: Path | None) -> PipelineGraph:
    """Make a pipeline of a job's config with a sweep: a stage for each choice.

    Raises:
        ConfigError: If the sweep makes no sense, or one of its configs does not load.
    """
    job_of(tree)
    stages = swept(tree, SWEEP_KEYS)
    sweep = tree.items["sweep"]
    assert isinstance(sweep, Section), "swept() has looked"
    said = {key: node for key, node in sweep.items.items() if key in SWEEP_KEYS}
    head = {"pipeline": Leaf(name, sweep.origin), **said}
    whole = Section({**head, "stages": Section(stages, sweep.origin)}, tree.origin)
    # The environment of the job is in every stage already, below what is swept.
    around = notify_layer(environment) if environment else None
    pipeline = _pipeline(whole if around is None else merge(around, whole))
    _check_sweep(pipeline)
    return pipeline


def _check_sweep(pipeline: PipelineGraph) -> None:
    """Say each problem once: a wrong key is wrong in every choice that has it."""
    problems = Problems()
    for stage in pipeline.stages.values():
        with problems.gathering():
            load_job(stage.tree)
    problems.raise_if_any("the sweep", where=pipeline.name)


def _with_presets(said: Any, overrides: Sequence[str], workspace: Workspace, whole: Tree, below: Tree) -> Tree:
    """Presets lie above what ``--from`` brings, so they are followed while the layers are still apart."""
    sweep = whole.items["sweep"]
    if any(key.rpartition(".")[2] == "preset" for key, _ in leaves(sweep)):
        raise ConfigError("'preset' cannot be swept above the config of --from", where=sweep.origin.where)
    reference, job = job_of(whole)
    check_same_job(below, reference, job)
    environment = workspace.environment
    return load_tree_with_presets(said, job.config, overrides=overrides, environment=environment, below=below)


def _said(source: Source) -> Path | Mapping[str, Any]:
    if isinstance(source, JobConfig):
        return as_mapping(source)
    if isinstance(source, Pipeline):
        return source.as_mapping()
    return Path(source) if isinstance(source, str) else source


def resolved(work: Work) -> dict[str, Any]:
    """Return what a job or a pipeline is with every value, as a file that reloads to the same.

    References to other stages stay what they are; paths are absolute, so that the file may lie anywhere.

    Raises:
        ConfigError: If the config of a stage has a problem.
    """
    if isinstance(work, LoadedJob):
        return work.plain
    said = plain(work.tree)
    stages = {name: _resolved_stage(stage.tree, said["stages"][name]) for name, stage in work.stages.items()}
    return {**said, "pipeline": work.name, "max_parallel": work.max_parallel, "stages": stages}


def _resolved_stage(tree: Tree, said: Mapping[str, Any]) -> dict[str, Any]:
    values = load_job(resolve_references(tree, sample_value)).plain
    for key, leaf in leaves(tree):
        if any(references(Section({"": leaf}, leaf.origin))):
            _put(values, key.split("."), leaf.value)
    return {**values, **{key: value for key, value in said.items() if key not in tree.items}}


def _put(values: Any, names: Sequence[str], value: Any) -> None:
    """Put a value at a dotted key, below which everything exists."""
    for name in names[:-1]:
        values = values[int(name) if isinstance(values, list) else name]
    values[int(names[-1]) if isinstance(values, list) else names[-1]] = value


def check(work: Work, *, workspace: Workspace) -> dict[str, LoadedJob]:
    """Check everything that can be known before a run starts.

    What a stage takes from other stages is not there yet: its config is checked, but not what it refers to.

    Returns:
        The loaded job of each stage; of a job, the job itself under the empty name.

    Raises:
        ClewError: With all problems of all stages.
    """
    if isinstance(work, LoadedJob):
        work.job.check(work.config, workspace.runs)
        return {"": work}
    loaded: dict[str, LoadedJob] = {}
    problems: list[tuple[str, ClewError]] = []
    for stage in work.stages.values():
        try:
            loaded[stage.name] = load_job(resolve_references(stage.tree, sample_value))
            if not any(references(stage.tree)):
                check(loaded[stage.name], workspace=workspace)
        except ClewError as error:
            problems.append((stage.name, error))
    if len(problems) == 1:
        raise problems[0][1]
    if problems:
        text = "".join(f"\n  {name}: " + str(error).replace("\n", "\n  ") for name, error in problems)
        raise ConfigError(f"{len(problems)} stages cannot run:{text}", where=work.name)
    return loaded
