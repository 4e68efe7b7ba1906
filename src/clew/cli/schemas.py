"""``clew config schema``: the JSON schema of a job's config or of a pipeline, for editors, and of ``result.json``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clew.config import Registry, SchemaWriter, Tree, leaves, load_tree
from clew.config.json_schema import DIALECT, Schema, either, when
from clew.config.schema import is_config
from clew.errors import ClewError, UserError, did_you_mean
from clew.jobs import Job, job_registry, resolve_job
from clew.jobs.loading import registries
from clew.plans import is_pipeline
from clew.plans.head import SWEEP_KEYS, PipelineHead, StageHead
from clew.runs import result_schema

_FILES = {"description": "A file below this one, or several.", **either({"type": "string"}, {"type": "array"})}
_FORMS: dict[str, Schema] = {
    "grid": {"description": "key: [values]; every combination is run.", "type": "object"},
    "list": {"description": "Mappings of keys to values; each is run.", "type": "array", "minItems": 1},
}


def schema_of(what: str) -> Schema:
    """The schema of a job's config, of a pipeline, of what a file holds, or of what a run has come to.

    Args:
        what: A job, the word ``pipeline`` or ``result``, or a config file: then the classes that it names are described
            as well.

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
    if what == "result":
        return result_schema()
    if ":" not in what and what not in job_registry().names():
        known = [*job_registry().names(), "pipeline", "result"]
        raise UserError(f"{what!r} is neither a job nor a config file", hint=did_you_mean(what, known))
    return job_schema(what, resolve_job(what), {})


def job_schema(reference: str, job: Job[Any], plugins: dict[str, dict[str, type]]) -> Schema:
    """The schema of a job's config, ``job:`` being what stands in the file."""
    writer = SchemaWriter(registries(), plugins)
    made = writer.root(job.config, {**_head(reference, job), "sweep": _sweep(writer)})
    return {"$schema": DIALECT, "title": job.config.__name__, **made, "$defs": writer.definitions}


def _sweep(writer: SchemaWriter) -> Schema:
    around = {key: schema for key, schema in writer.keys(PipelineHead).items() if key in SWEEP_KEYS}
    return {
        "description": "Run the job once for each choice of values.",
        "type": "object",
        "properties": {**_FORMS, **around},
        "oneOf": [{"required": [form]} for form in _FORMS],
        "additionalProperties": False,
    }


def pipeline_schema(tree: Tree | None = None, plugins: dict[str, dict[str, type]] | None = None) -> Schema:
    """The schema of a pipeline: its stages are configs of the registered jobs, and of those that ``tree`` names.

    A stage may leave its ``job`` to a file that it extends; what else it says is then known to ``clew check`` alone.
    """
    writer = SchemaWriter(registries(), plugins or {}, references=True)
    heads = writer.literal()
    jobs = dict(_jobs(tree))
    for name, job in jobs.items():
        head = {**heads.keys(StageHead), **_head(name, job)}
        writer.definitions[f"stage {name}"] = writer.root(job.config, head)
    word = {"description": "Which job.", **either({"enum": list(jobs)}, {"type": "string", "pattern": ":"})}
    known = {"properties": {"job": word, "extends": _FILES, **heads.keys(StageHead)}}
    chosen = [when({"job": {"const": name}}, {"$ref": f"#/$defs/stage {name}"}) for name in jobs]
    stage = {"type": "object", "anyOf": [{"required": ["job"]}, {"required": ["extends"]}], **known, "allOf": chosen}
    stages = {"type": "object", "minProperties": 1, "additionalProperties": stage}
    return {
        "$schema": DIALECT,
        "title": "Pipeline",
        "type": "object",
        "properties": {"extends": _FILES, **heads.keys(PipelineHead), "stages": stages},
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
