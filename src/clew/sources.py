"""What can be run: a file, a mapping, a config object, or a pipeline that was built in Python."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clew.config import dump, load_tree
from clew.errors import ClewError, ConfigError, UserError
from clew.jobs import Job, JobConfig, LoadedJob, job_registry, load_job
from clew.jobs.loading import registries
from clew.plans import Pipeline as PipelineGraph
from clew.plans import is_pipeline, load_pipeline
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
        plain = as_mapping(config) if isinstance(config, JobConfig) else dict(config)
        self._stages[name] = {**plain, **({"after": list(after)} if after else {})}
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


def read(source: Source, overrides: Sequence[str] = (), *, workspace: Workspace, name: str = "") -> Work:
    """Load a job or a pipeline.

    Args:
        source: What to run.
        overrides: ``key=value``, over everything else.
        workspace: Its ``clew.yaml`` is a layer of every job's config.
        name: The name of the run or the pipeline; empty leaves what the config says. A pipeline that says nothing is
            called like its file.

    Raises:
        ConfigError: With every problem that the config has.
    """
    said = _said(source)
    tree = load_tree(said)
    if not is_pipeline(tree):
        named = [f"name={json.dumps(name)}"] if name else []
        return load_job(said, [*overrides, *named], environment=workspace.environment)
    if isinstance(said, Path) and "pipeline" not in tree.items:
        name = name or said.stem  # two nameless pipelines in one workspace are not the same one
    named = [f"pipeline={json.dumps(name)}"] if name else []
    return load_pipeline(said, [*overrides, *named], environment=workspace.environment)


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
