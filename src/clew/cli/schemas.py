"""``clew config schema``: the JSON schema of a job's config or of a pipeline, for editors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clew.config import Registry, SchemaWriter, Tree, json_schema, leaves, load_tree
from clew.config.json_schema import DIALECT, Schema, either
from clew.config.schema import is_config
from clew.errors import ClewError, UserError, did_you_mean
from clew.jobs import Job, job_registry, resolve_job
from clew.jobs.loading import registries
from clew.plans import is_pipeline
from clew.plans.pipeline import KEYS

_FILES = {"description": "A file below this one, or several.", **either({"type": "string"}, {"type": "array"})}
_AFTER = either({"type": "string"}, {"type": "array", "items": {"type": "string"}})
_COUNT = {"type": "integer", "minimum": 1}
_SWEEP: Schema = {
    "description": "Run the job once for each choice of values.",
    "type": "object",
    "properties": {
        "grid": {"description": "key: [values]; every combination is run.", "type": "object"},
        "list": {"description": "Mappings of keys to values; each is run.", "type": "array", "minItems": 1},
        "max_parallel": {"description": "How many run at the same time.", "default": 1, **_COUNT},
    },
    "oneOf": [{"required": ["grid"]}, {"required": ["list"]}],
    "additionalProperties": False,
}
_PIPELINE: dict[str, Schema] = {
    "pipeline": {"description": "The pipeline's name.", "type": "string", "pattern": r"^[A-Za-z0-9][A-Za-z0-9._-]*$"},
    "max_parallel": {"description": "How many stages may run at the same time.", "default": 1, **_COUNT},
    "extends": _FILES,
}


_STAGE: dict[str, Schema] = {
    "after": {"description": "Stages that must be over before.", **_AFTER},
    "when": {"description": "Run the stage only where this holds, such as ${eval.metrics.exact} < 0.9."},
    # What a pipeline says about all its stages, a stage may say for itself.
    **{key: {} for key in KEYS if key not in (*_PIPELINE, "stages", "notify")},
}


def schema_of(what: str) -> Schema:
    """The schema of a job's config, of a pipeline, or of what a file holds.

    Args:
        what: A job, the word ``pipeline``, or a config file: then the classes that it names are described as well.

    Raises:
        ClewError: If it is none of these.
    """
    path = Path(what)
    if path.suffix in (".yaml", ".yml", ".json"):
        tree = load_tree(path)
        plugins = _named_classes(tree)
        return pipeline_schema(tree, plugins) if is_pipeline(tree) else _schema_of_file(tree, path, plugins)
    if what == "pipeline":
        return pipeline_schema()
    if ":" not in what and what not in job_registry().names():
        known = [*job_registry().names(), "pipeline"]
        raise UserError(f"{what!r} is neither a job nor a config file", hint=did_you_mean(what, known))
    return job_schema(what, resolve_job(what), {})


def job_schema(reference: str, job: Job[Any], plugins: dict[str, dict[str, type]]) -> Schema:
    """The schema of a job's config, ``job:`` being what stands in the file."""
    head = {**_head(reference, job), "sweep": _SWEEP}
    return json_schema(job.config, head=head, registries=registries(), plugins=plugins)


def pipeline_schema(tree: Tree | None = None, plugins: dict[str, dict[str, type]] | None = None) -> Schema:
    """The schema of a pipeline: its stages are configs of the registered jobs, and of those that ``tree`` names."""
    writer = SchemaWriter(registries(), plugins or {}, references=True)
    jobs = dict(_jobs(tree))
    for name, job in jobs.items():
        writer.definitions[f"stage {name}"] = writer.root(job.config, {**_STAGE, **_head(name, job)})
    word = {"description": "Which job.", **either({"enum": list(jobs)}, {"type": "string", "pattern": ":"})}
    chosen: list[Schema] = [
        {"if": {"properties": {"job": {"const": name}}}, "then": {"$ref": f"#/$defs/stage {name}"}} for name in jobs
    ]
    stage = {"type": "object", "required": ["job"], "properties": {"job": word}, "allOf": chosen}
    stages = {"type": "object", "minProperties": 1, "additionalProperties": stage}
    return {
        "$schema": DIALECT,
        "title": "Pipeline",
        "type": "object",
        "properties": {**{key: _PIPELINE.get(key, {}) for key in KEYS}, "stages": stages},
        "required": ["stages"],
        "additionalProperties": False,
        "$defs": writer.definitions,
    }


def _schema_of_file(tree: Tree, path: Path, plugins: dict[str, dict[str, type]]) -> Schema:
    leaf = dict(leaves(tree)).get("job")
    if leaf is None or not isinstance(leaf.value, str):
        hint = f"add a line such as 'job: sft' (known: {', '.join(job_registry().names())})"
        raise UserError("the config does not say which job it is for", where=str(path), hint=hint)
    return job_schema(leaf.value, resolve_job(leaf.value, leaf.origin.base), plugins)


def _head(reference: str, job: Job[Any]) -> dict[str, Schema]:
    presets = list(getattr(job.config, "presets", {}))
    preset = {"preset": {"description": "Values to start from.", "enum": [*presets, None]}} if presets else {}
    return {"job": {"description": job.summary, "const": reference}, "extends": _FILES, **preset}


def _jobs(tree: Tree | None) -> Iterator[tuple[str, Job[Any]]]:
    """The registered jobs that can be imported here, and those that the stages name."""
    for name in job_registry().names():
        try:
            yield name, resolve_job(name)
        except ClewError:
            continue
    for key, leaf in leaves(tree) if tree is not None else ():
        if key.endswith(".job") and key.count(".") == 2 and isinstance(leaf.value, str) and ":" in leaf.value:
            yield leaf.value, resolve_job(leaf.value, leaf.origin.base)


def _named_classes(tree: Tree) -> dict[str, dict[str, type]]:
    """The plug-ins that a file names by ``module:Class`` or ``file.py:Class``, as they stand there."""
    found: dict[str, dict[str, type]] = {}
    for key, leaf in leaves(tree):
        if key.rpartition(".")[2] == "type" and isinstance(leaf.value, str) and ":" in leaf.value:
            for kind, registry in registries().items():
                cls = _class(registry, leaf.value, leaf.origin.base)
                found.setdefault(kind, {}).update({leaf.value: cls} if cls else {})
    return found


def _class(registry: Registry, reference: str, base: Path | None) -> type | None:
    found = registry.resolve(reference, base)
    return found if isinstance(found, type) and is_config(found) else None
