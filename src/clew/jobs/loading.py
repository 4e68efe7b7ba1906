"""From a file (or a mapping, or a part of a pipeline) to a job with its typed config, and on to a run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from clew.config import Loaded, Registry, Tree, config_hash, load, load_tree, to_yaml
from clew.config.tree import Leaf
from clew.errors import ConfigError
from clew.jobs.base import Job, JobConfig
from clew.jobs.code import code_hash
from clew.jobs.registry import job_registry
from clew.runs import Run, RunInfo, Workspace, create_run
from clew.runs.ids import fresh_name
from clew.tasks import registry as task_registry

RESERVED = ("extends", "preset", "job")


@dataclass(frozen=True)
class LoadedJob:
    """A job and the config that it is to run with."""

    reference: str
    job: Job[Any]
    loaded: Loaded

    @property
    def config(self) -> JobConfig:
        """The typed config."""
        value: JobConfig = self.loaded.value
        return value

    @property
    def plain(self) -> dict[str, Any]:
        """The resolved config as it stands in a file, with its ``job`` key."""
        return {"job": self.reference, **self.loaded.plain}

    @cached_property
    def config_hash(self) -> str:
        """Hash of everything in the config that can change results."""
        name = self.reference.rpartition(":")[2]
        return hashlib.sha256(f"{name}\0{config_hash(self.config)}".encode()).hexdigest()

    @cached_property
    def code_hash(self) -> str:
        """Hash of the code that the run is made of."""
        return code_hash(self.job.run, self.config)


def registries() -> dict[str, Registry]:
    """Return the registries that configs refer to."""
    return {"task": task_registry()}


def resolve_job(reference: str, base: Path | None = None) -> Job[Any]:
    """Find a job by name, ``package.module:name`` or ``path/file.py:name``.

    Raises:
        ConfigError: If there is no such job.
    """
    found = job_registry().resolve(reference, base)
    if not isinstance(found, Job):
        raise ConfigError(f"{reference} is no job", hint="put @clew.job() above the function")
    return found


def load_job(
    source: Path | Mapping[str, Any] | Tree, overrides: Sequence[str] = (), *, environment: Path | None = None
) -> LoadedJob:
    """Load a job's config through all layers.

    Args:
        source: A file, a mapping, or a tree that was cut out of another file.
        overrides: ``key=value`` from the command line.
        environment: The workspace's ``clew.yaml``, a layer between the file and the command line.

    Raises:
        ConfigError: With every problem that the config has.
    """
    tree = load_tree(source, overrides=overrides, environment=environment)
    leaf = tree.items.get("job")
    if not isinstance(leaf, Leaf) or not isinstance(leaf.value, str):
        raise ConfigError(
            "the config does not say which job it is for",
            where=tree.origin.where,
            hint=f"add a line such as 'job: sft' (known: {', '.join(job_registry().names())})",
        )
    try:
        job = resolve_job(leaf.value, leaf.origin.base)
    except ConfigError as error:
        raise ConfigError(error.what, where=error.where or leaf.origin.where, hint=error.hint) from error
    reference = leaf.value if ":" not in leaf.value else job.reference
    return LoadedJob(reference, job, load(tree, root=job.config, registries=registries(), reserved=RESERVED))


def load_run_config(run: Run) -> JobConfig:
    """Load the resolved config of a run, which holds every value: no preset, no environment, no default."""
    config: JobConfig = load_job(run.config_path).config
    return config


def create_job_run(
    workspace: Workspace, loaded: LoadedJob, *, run_id: str = "", plan: str | None = None, stage: str | None = None
) -> Run:
    """Make the run directory for a job.

    Raises:
        UserError: If the job's own check fails, the name exists, or the workspace cannot be written.
    """
    loaded.job.check(loaded.config, workspace.runs)
    info = RunInfo(
        id=run_id or loaded.config.name or fresh_name(loaded.reference.rpartition(":")[2]),
        job=loaded.reference,
        config_hash=loaded.config_hash,
        code_hash=loaded.code_hash,
        plan=plan,
        stage=stage,
    )
    return create_run(workspace.runs, info, to_yaml(loaded.plain), loaded.loaded.origins.plain())
