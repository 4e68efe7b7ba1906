"""From a file (or a mapping, or a part of a pipeline) to a job with its typed config, and on to a run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from clew.config import (
    Loaded,
    Origin,
    Origins,
    Registry,
    Resolved,
    Tree,
    config_hash,
    content_digest,
    from_layer,
    input_digests,
    load,
    load_tree,
    plain,
    to_yaml,
)
from clew.config.tree import Leaf, without
from clew.errors import ConfigError, UserError, did_you_mean
from clew.followers import tracker_registry
from clew.jobs.base import Job, JobConfig
from clew.jobs.code import code_hash
from clew.jobs.registry import job_registry
from clew.merging.methods import method_registry
from clew.runs import Run, RunInfo, Workspace, create_run
from clew.runs.files import read_json
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
        return hashlib.sha256(f"{name}\0{config_hash(self.config, self._digest)}".encode()).hexdigest()

    @cached_property
    def input_digests(self) -> dict[str, Any]:
        """Key to the digest of the file or folder that it names; a list where it names several."""
        return input_digests(self.config, self._digest)

    @cached_property
    def _digest(self) -> Callable[[str], str]:
        """A model can be large: it is read once, for the hash and for its own digest."""
        return cache(content_digest)

    @cached_property
    def code_hash(self) -> str:
        """Hash of the code that the run is made of."""
        return code_hash(self.job.run, self.config)


def registries() -> dict[str, Registry]:
    """Return the registries that configs refer to."""
    return {"task": task_registry(), "tracker": tracker_registry(), "method": method_registry()}


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
    source: Path | Mapping[str, Any] | Tree,
    overrides: Sequence[str] = (),
    *,
    environment: Path | None = None,
    below: Tree | None = None,
) -> LoadedJob:
    """Load a job's config through all layers.

    Args:
        source: A file, a mapping, or a tree that was cut out of another file.
        overrides: ``key=value`` from the command line.
        environment: The workspace's ``clew.yaml``, a layer between the file and the command line.
        below: The config of another file or run, from :func:`config_below`.

    Raises:
        ConfigError: With every problem that the config has.
    """
    tree = load_tree(source, overrides=overrides, environment=environment, below=below)
    reference, job = job_of(tree)
    if below is not None:
        check_same_job(below, reference, job)
    loaded = load(
        source,
        root=job.config,
        registries=registries(),
        overrides=overrides,
        environment=environment,
        below=below,
        reserved=RESERVED,
    )
    return LoadedJob(reference, job, loaded)


def job_of(tree: Tree) -> tuple[str, Job[Any]]:
    """The job that a config names under ``job``: its shortest reference, and itself.

    Raises:
        ConfigError: If it names none, or one that does not exist.
    """
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
    return (leaf.value if ":" not in leaf.value else job.reference), job


def config_below(name: str, runs: Path) -> Tree:
    """The config of a run or a file, to be laid below another one: ``--from``.

    A run's values keep the places that said them there. Its name, and the choices of a sweep, are its own.

    Args:
        name: A run's name, the path of its directory, or a config file.
        runs: The folder of runs.

    Raises:
        UserError: If there is neither a run nor a file of that name, or it is a pipeline.
    """
    folder = next((path for path in (runs / name, Path(name)) if name and (path / "run.json").is_file()), None)
    if folder is None and not Path(name).is_file():
        names = [path.parent.name for path in runs.glob("*/run.json")]
        hint = did_you_mean(name, names) or "clew ls shows the runs"
        raise UserError(f"there is no run and no config file {name!r}", where="--from", hint=hint)
    tree = load_tree(Path(name) if folder is None else folder / "config.yaml")
    if "stages" in tree.items and "job" not in tree.items:
        raise UserError(f"{name} is a pipeline", where="--from", hint="name the run of one of its stages")
    return from_layer(without(tree, ("name", "sweep")), {} if folder is None else _places(Run(folder)))


def _places(run: Run) -> dict[str, str]:
    return {key: f"{run.id} ({place(entry['layer'], entry['where'])})" for key, entry in run_origins(run).items()}


def run_origins(run: Run) -> dict[str, dict[str, Any]]:
    """What a run's ``origins.json`` holds: for each leaf its value, layer, place and shadowed values.

    Raises:
        UserError: If it is gone or damaged.
    """
    try:
        found: dict[str, dict[str, Any]] = read_json(run.path / "origins.json")
    except (OSError, ValueError) as error:
        raise UserError(f"the run directory is damaged: origins.json cannot be read ({error})", where=run.id) from error
    return found


def data_fingerprints(run: Run) -> dict[str, Any]:
    """What each file or folder that the config names held when the run was made: config key to SHA-256.

    Nothing where ``origins.json`` is gone: a result is written all the same.
    """
    try:
        origins = run_origins(run)
    except UserError:
        return {}
    return {key: entry["content"] for key, entry in origins.items() if entry.get("content")}


def place(layer: str, where: str) -> str:
    """Where a value was said, in words."""
    return f"default of {where}" if layer == "default" else where


def check_same_job(below: Tree, reference: str, job: Job[Any]) -> None:
    """Refuse the config of another job, whose keys mean nothing to this one.

    Raises:
        UserError: If ``below`` is not for the job.
    """
    leaf = below.items.get("job")
    if leaf is not None and job_of(below)[1].reference != job.reference:
        what = f"it is a config of the job {plain(leaf)}, and this one is of the job {reference}"
        raise UserError(what, where=f"--from {leaf.origin.where}", hint="take a run or a file of the same job")


def load_run(run: Run) -> LoadedJob:
    """Load the config of a run, with where its values came from and what they won over.

    Raises:
        UserError: If that file is gone or damaged.
    """
    found = load_job(run.config_path)

    def origin(entry: Mapping[str, Any]) -> tuple[Any, Origin]:
        return entry["value"], Origin(entry["layer"], entry["where"])

    said = {
        key: Resolved(*origin(entry), tuple(origin(one) for one in entry["shadowed"]))
        for key, entry in run_origins(run).items()
    }
    entries = {key: said.get(key, entry) for key, entry in found.loaded.origins.items()}
    return replace(found, loaded=replace(found.loaded, origins=Origins(entries)))


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
    return create_run(workspace.runs, info, to_yaml(loaded.plain), origins_with_content(loaded))


def origins_with_content(loaded: LoadedJob) -> dict[str, Any]:
    """Return the origins as JSON, and with each path that is read what it held when the run was made."""
    found = loaded.loaded.origins.plain()
    for key, digest in loaded.input_digests.items():
        if key in found:
            found[key]["content"] = digest
        elif isinstance(digest, list):  # the items of the list have places of their own
            for index, item in enumerate(digest):
                found.get(f"{key}.{index}", {})["content"] = item
    return found
