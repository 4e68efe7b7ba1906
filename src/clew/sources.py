"""What can be run: a file, a mapping, a config object, or a pipeline that was built in Python."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clew.config import Tree, dump, leaves, load_tree, load_tree_with_presets, merge, plain, swept
from clew.config.layers import word_of
from clew.config.problems import Problem
from clew.config.tree import Leaf, Section
from clew.errors import ClewError, ConfigError, UserError
from clew.jobs import Job, JobConfig, LoadedJob, job_registry, load_job
from clew.jobs.loading import check_same_job, config_below, job_of, registries
from clew.notify import notify_layer
from clew.plans import Pipeline as PipelineGraph
from clew.plans import is_pipeline, load_pipeline, parse_pipeline
from clew.plans.pipeline import KEYS
from clew.plans.references import references, resolve_references, sample_value
from clew.runs import Workspace

if TYPE_CHECKING:
    from clew.runs import JobResult
    from clew.targets.watching import Watcher

Work = LoadedJob | PipelineGraph
"""What a source turns out to be, ready to be started."""


class Pipeline:
    """A pipeline that is built in Python; it means what the same file would mean.

    Example::

        pipeline = clew.Pipeline("dates")
        pipeline.stage("sft", {"job": "sft", "model": "models/small", "task": {"type": "dates.py:Dates"}})
        pipeline.stage("eval", {"job": "eval", "model": "${sft.artifacts.adapter}", "task": {"type": "dates.py:Dates"}})
        result = pipeline.run()

    Args:
        name: The pipeline's name in its workspace.
        max_parallel: How many stages may run at the same time.
    """

    def __init__(self, name: str, max_parallel: int = 1) -> None:
        self.name = name
        self.max_parallel = max_parallel
        self._stages: dict[str, dict[str, Any]] = {}

    def stage(self, name: str, config: Mapping[str, Any] | JobConfig, after: Sequence[str] = ()) -> Pipeline:
        """Add a stage and return the pipeline.

        Args:
            name: The stage's name; its run is called ``<pipeline>.<stage>``.
            config: A job's config, as a mapping with ``job`` or as an object; ``${other.artifacts.NAME}`` stands for
                what another stage makes.
            after: Stages that must have completed before, besides those that the config refers to.

        Raises:
            UserError: If there is such a stage already.
        """
        if name in self._stages:
            raise UserError(f"there is a stage {name!r} already", where=self.name)
        said = as_mapping(config) if isinstance(config, JobConfig) else dict(config)
        self._stages[name] = {**said, **({"after": list(after)} if after else {})}
        return self

    def as_mapping(self) -> dict[str, Any]:
        """Return the pipeline as it would stand in a file."""
        return {"pipeline": self.name, "max_parallel": self.max_parallel, "stages": dict(self._stages)}

    def run(self, *, workspace: Workspace | Path | str | None = None, watcher: Watcher | None = None) -> JobResult:
        """Carry the pipeline out; see :func:`clew.run`."""
        from clew.api import run

        return run(self, workspace=workspace, watcher=watcher)


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
        return load_job(said, [*overrides, *named], environment=workspace.environment, below=under)
    if below:
        raise UserError("a pipeline has no single config that could lie above another", where=f"--from {below}")
    if isinstance(said, Path) and "pipeline" not in tree.items:
        name = name or said.stem  # two nameless pipelines in one workspace are not the same one
    named = [f"pipeline={json.dumps(name)}"] if name else []
    return load_pipeline(said, [*overrides, *named], environment=workspace.environment)


_SWEEP_KEYS = tuple(key for key in KEYS if key not in ("pipeline", "stages", "extends"))
"""What a sweep says about the pipeline that it becomes."""


def _sweep(tree: Tree, name: str, environment: Path | None) -> PipelineGraph:
    """Make a pipeline of a job's config with a sweep: a stage for each choice.

    Raises:
        ConfigError: If the sweep makes no sense, or one of its configs does not load.
    """
    job_of(tree)
    stages = swept(tree, _SWEEP_KEYS)
    sweep = tree.items["sweep"]
    assert isinstance(sweep, Section), "swept() has looked"
    said = {key: node for key, node in sweep.items.items() if key in _SWEEP_KEYS}
    head = {"pipeline": Leaf(name, sweep.origin), **said}
    whole = Section({**head, "stages": Section(stages, sweep.origin)}, tree.origin)
    # The environment of the job is in every stage already, below what is swept.
    around = notify_layer(environment) if environment else None
    pipeline = parse_pipeline(whole if around is None else merge(around, whole))
    _check_sweep(pipeline)
    return pipeline


def _check_sweep(pipeline: PipelineGraph) -> None:
    """Say each problem once: a wrong key is wrong in every choice that has it."""
    problems: dict[str, ConfigError] = {}
    for stage in pipeline.stages.values():
        try:
            load_job(stage.tree)
        except ConfigError as error:
            problems |= dict.fromkeys(_problems_of(error), error)
    if len(problems) == 1:
        raise next(iter(problems.values()))
    if problems:
        text = "".join(f"\n  {problem}" for problem in problems)
        raise ConfigError(f"{len(problems)} problems in the sweep:{text}", where=pipeline.name)


def _problems_of(error: ConfigError) -> list[str]:
    """A line for each: an error about several problems has them below its first line."""
    several = error.what.splitlines()[1:]
    return [line.strip() for line in several] or [str(Problem(error.what, error.where, error.hint))]


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


def as_mapping(config: JobConfig) -> dict[str, Any]:
    """Return a config object as it would stand in a file, with its ``job``.

    Raises:
        ConfigError: If no job beside the class, or more than one, takes it.
    """
    cls = type(config)
    nearby = [item for item in vars(sys.modules[cls.__module__]).values() if isinstance(item, Job)]
    found = {job.reference: job for job in nearby if job.config is cls}
    if len(found) != 1:
        reason = f"several jobs take it: {', '.join(sorted(found))}" if found else "no job in its file takes it"
        raise ConfigError(
            f"a {cls.__name__} alone does not say which job to run: {reason}",
            hint="pass a mapping with a 'job' key instead",
        )
    (reference,) = found
    return {"job": _shortest(reference), **dump(config, registries())}


def _shortest(reference: str) -> str:
    """The registered name of a job that has one."""
    registry = job_registry()
    return next((name for name in registry.names() if registry.reference(name) == reference), reference)


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
