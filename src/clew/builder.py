"""Pipelines that are built in Python, and configs as they would stand in a file."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack

from clew.config import dump
from clew.config.schema import is_config
from clew.errors import ConfigError, UserError
from clew.jobs import Job, JobConfig, job_registry
from clew.jobs.loading import registries

if TYPE_CHECKING:
    from clew.notify import NotifyConfig
    from clew.plans.policy import RetryConfig
    from clew.runs import JobResult, Workspace
    from clew.targets.watching import Watcher

OnFailure = Literal["abort", "continue", "retry", "wait"]


class PipelineWords(TypedDict, total=False):
    """What a pipeline may say beside its name and its stages; the keys are those of the file."""

    extends: str | Sequence[str]
    max_parallel: int | None
    on_failure: OnFailure | None
    retry: Mapping[str, Any] | RetryConfig | None
    notify: Mapping[str, Any] | NotifyConfig | None


class StageWords(TypedDict, total=False):
    """What a stage may say beside its job's config; the keys are those of the file."""

    after: str | Sequence[str] | None
    when: str | bool | None
    on_failure: OnFailure | None
    retry: Mapping[str, Any] | RetryConfig | None


class Pipeline:
    """A pipeline that is built in Python; it means what the same file would mean.

    Example::

        task = {"type": "dates.py:Dates"}
        pipeline = clew.Pipeline("dates", on_failure="wait", retry={"times": 2})
        pipeline.stage("sft", {"job": "sft", "model": "models/small", "task": task})
        pipeline.stage("eval", {"job": "eval", "model": "${sft.artifacts.adapter}", "task": task})
        pipeline.stage("grpo", {"extends": "grpo.yaml"}, when="${eval.metrics.exact} < 0.9")
        result = pipeline.run()

    Args:
        name: The pipeline's name in its workspace.
        said: ``max_parallel``, ``on_failure``, ``retry``, ``notify`` and ``extends``, as in a file. What is not said is
            left to the files that it extends, the workspace and the defaults; None is a file's ``null``.
    """

    def __init__(self, name: str, **said: Unpack[PipelineWords]) -> None:
        self.name = name
        self._said: dict[str, Any] = {key: _plain(value) for key, value in said.items()}
        self._stages: dict[str, dict[str, Any]] = {}

    def stage(self, name: str, config: Mapping[str, Any] | JobConfig, **said: Unpack[StageWords]) -> Pipeline:
        """Add a stage and return the pipeline.

        Args:
            name: The stage's name; its run is called ``<pipeline>.<stage>``.
            config: A job's config, as a mapping with ``job`` or ``extends``, or as an object;
                ``${other.artifacts.NAME}`` stands for what another stage makes.
            said: ``after`` (stages that must be over before, besides those that the config refers to), ``when``,
                ``on_failure`` and ``retry``, as in a file.

        Returns:
            This pipeline, so that calls can be chained.

        Raises:
            UserError: If there is such a stage already.
            ConfigError: If no job beside the class of a config object takes it.
        """
        if name in self._stages:
            raise UserError(f"there is a stage {name!r} already", where=self.name)
        job = as_mapping(config) if isinstance(config, JobConfig) else dict(config)
        self._stages[name] = {**job, **{key: _plain(value) for key, value in said.items()}}
        return self

    def as_mapping(self) -> dict[str, Any]:
        """Return the pipeline as it would stand in a file."""
        return {"pipeline": self.name, **self._said, "stages": dict(self._stages)}

    def run(self, *, workspace: Workspace | Path | str | None = None, watcher: Watcher | None = None) -> JobResult:
        """Carry the pipeline out; the arguments, the result and the errors are those of :func:`clew.run`.

        Args:
            workspace: Where runs are kept; None takes ``$CLEW_WORKSPACE``, else the current folder.
            watcher: Is told how it goes; None shows nothing.

        Returns:
            What came of it; metrics and artifacts are called ``<stage>.<name>``.

        Raises:
            ConfigError: With every problem that the pipeline has.
            UserError: If it cannot be started.
        """
        from clew.api import run

        return run(self, workspace=workspace, watcher=watcher)


def _plain(value: Any) -> Any:
    if is_config(type(value)):
        return dump(value)
    return list(value) if isinstance(value, tuple) else value


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
