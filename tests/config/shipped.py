"""The configs of everything that ships, each job on each task, and values for their leaves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pydantic
from hypothesis import strategies as st

from clew.config import Loaded, fields_of, load
from clew.config.leaf import adapter, validate
from clew.config.schema import FieldSpec, LeafShape, is_config
from clew.jobs import job_registry, resolve_job
from clew.jobs.loading import RESERVED, registries
from clew.jobs.registry import BUILTIN
from clew.tasks import registry as task_registry

REQUIRED: dict[str, Any] = {"model": "/models/m", "models": ["/models/m", "/models/n"], "script": "/code/train.py"}
TASKS: dict[str, dict[str, Any]] = {"dataset": {"train": "/data/a"}}


def _shipped() -> Iterator[tuple[str, str]]:
    for job in job_registry().names():
        if job in BUILTIN:
            takes_task = "task" in fields_of(resolve_job(job).config)
            yield from ((job, task) for task in (task_registry().names() if takes_task else [""]))


SHIPPED = list(_shipped())
EACH = [
    ("pretrain", "arithmetic"),
    ("sft", "dataset"),
    ("grpo", "wordle"),
    ("eval", "dataset"),
    ("merge", ""),
    ("export", ""),
    ("script", ""),
]
"""Each job and each task once, for what takes time."""


def plain_config(job: str, task: str) -> dict[str, Any]:
    """The shortest config of a job on a task."""
    fields = fields_of(resolve_job(job).config)
    needed = {name: value for name, value in REQUIRED.items() if name in fields and fields[name].required}
    return {"job": job, **needed, **({"task": {"type": task, **TASKS.get(task, {})}} if task else {})}


def load_plain(job: str, value: Any, *overrides: str, **options: Any) -> Loaded:
    """Load the config of a job."""
    cls = resolve_job(job).config
    return load(value, root=cls, registries=registries(), overrides=overrides, reserved=RESERVED, **options)


def leaf_fields(value: Any, key: str = "", hashed: bool = True) -> Iterator[tuple[str, FieldSpec, bool]]:
    """Every leaf of a config that can be reached by a dotted key: its key, its field, and whether it is hashed."""
    for spec in fields_of(type(value)).values():
        inner, full = getattr(value, spec.name), f"{key}.{spec.name}".lstrip(".")
        if isinstance(spec.shape, LeafShape):
            yield full, spec, hashed and spec.hashed
        elif is_config(type(inner)):
            yield from leaf_fields(inner, full, hashed and spec.hashed)


def values_of(annotation: Any) -> st.SearchStrategy[Any]:
    """Values that fit an annotation, as JSON holds them."""
    schema = adapter(annotation).json_schema()
    return _values(schema, schema.get("$defs", {}))


def other_value(annotation: Any, old: Any) -> Any:
    """A value that fits an annotation and is not the old one; None where none comes to mind."""
    schema = adapter(annotation).json_schema()
    options = [schema, *schema.get("anyOf", [])]
    choices = [choice for option in options for choice in option.get("enum", [])]
    for value in [*choices, True, False, 1, 2, 3, 0.5, 1.5, "/data/x", "x", "y", [1], [2, 3], [0.1, 0.2], ["/data/x"]]:
        try:
            validate(annotation, value)
        except pydantic.ValidationError:
            continue
        if value != old:
            return value
    return None


def _values(schema: dict[str, Any], definitions: dict[str, Any]) -> st.SearchStrategy[Any]:
    if "$ref" in schema:
        return _values(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    if "anyOf" in schema:
        return st.one_of([_values(option, definitions) for option in schema["anyOf"]])
    if "enum" in schema or "const" in schema:
        return st.sampled_from(schema.get("enum", [schema.get("const")]))
    kind = schema.get("type")
    if kind == "array":
        items = [_values(item, definitions) for item in schema.get("prefixItems", [])]
        few = st.lists(_values(schema.get("items", {}), definitions), min_size=schema.get("minItems", 0), max_size=3)
        return st.tuples(*items).map(list) if items else few
    if kind in ("integer", "number"):
        low, high = schema.get("minimum", schema.get("exclusiveMinimum")), schema.get("maximum")
        high = schema.get("exclusiveMaximum", high)
        if kind == "integer":
            low = low + 1 if "exclusiveMinimum" in schema else low
            return st.integers(low, high if high is not None else (low or 0) + 50)
        edges = {"exclude_min": "exclusiveMinimum" in schema, "exclude_max": "exclusiveMaximum" in schema}
        return st.floats(low if low is not None else -9.0, high if high is not None else (low or 0) + 9.0, **edges)
    if kind == "string" and "pattern" in schema:
        return st.from_regex(schema["pattern"], fullmatch=True).filter(str.isascii)
    plain = {"string": st.sampled_from(["/data/x", "/data/y"]), "boolean": st.booleans(), "null": st.none()}
    return plain[kind] if kind in plain else st.just({})
