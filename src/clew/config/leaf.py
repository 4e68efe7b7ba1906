"""Single values: their validation, their type in words, and the paths inside them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, get_args, get_origin

import pydantic
from pydantic_core import to_jsonable_python

from clew.config.plugins import absolute
from clew.config.schema import IN_WORDS, INPUT_PATH, MAY_BE_NAME, members, unwrap
from clew.config.tree import Items, Leaf, Node, Section

_NAMES = {"number": "float", "integer": "int", "string": "str", "boolean": "bool", "object": "mapping"}
_BOUNDS = {
    "exclusiveMinimum": "> {}",
    "minimum": ">= {}",
    "exclusiveMaximum": "< {}",
    "maximum": "<= {}",
    "multipleOf": "a multiple of {}",
    IN_WORDS: "{}",
    "pattern": "matching {}",
    "minLength": "of at least {} {}",
    "maxLength": "of at most {} {}",
    "minItems": "of at least {} {}",
    "maxItems": "of at most {} {}",
}


@dataclass(frozen=True)
class TypeText:
    """A type in words: ``float | null`` with the constraint ``> 0``."""

    name: str
    constraint: str
    choices: tuple[Any, ...] = ()

    def __str__(self) -> str:
        name, null, _ = self.name.partition(" | null")
        return f"{name} {self.constraint}".strip() + null


@cache
def adapter(annotation: Any) -> pydantic.TypeAdapter[Any]:
    """The validator of an annotation."""
    return pydantic.TypeAdapter(annotation)


def validate(annotation: Any, value: Any) -> Any:
    """Check a plain value as JSON would be: no words for numbers, but lists for tuples and text for paths.

    Raises:
        pydantic.ValidationError: The value does not fit.
    """
    return adapter(annotation).validate_json(json.dumps(value), strict=True)


def is_finite(value: Any) -> bool:
    """Whether no number in a plain value is infinite or none at all: neither JSON nor a training has such numbers."""
    if isinstance(value, Mapping):
        return all(map(is_finite, value.values()))
    if isinstance(value, list | tuple):
        return all(map(is_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


@cache
def allows_none(annotation: Any) -> bool:
    """Whether nothing is a value of the type."""
    try:
        return adapter(annotation).validate_json("null", strict=True) is None
    except pydantic.ValidationError:
        return False


def plain_value(value: Any) -> Any:
    """A value as JSON holds it; sets become sorted lists."""
    if isinstance(value, set | frozenset):
        return sorted((plain_value(item) for item in value), key=repr)
    if isinstance(value, Mapping):
        return {str(plain_value(key)): plain_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_value(item) for item in value]
    return to_jsonable_python(value, inf_nan_mode="constants")


@cache
def type_text(annotation: Any) -> TypeText:
    """Say a type in words."""
    try:
        found = adapter(annotation).json_schema()
    except pydantic.errors.PydanticInvalidForJsonSchema:
        return TypeText(str(annotation), "")
    return _text(found, found.get("$defs", {}))


def _text(found: Mapping[str, Any], definitions: Mapping[str, Any]) -> TypeText:
    if "$ref" in found:
        return _text(definitions[found["$ref"].rpartition("/")[2]], definitions)
    if "anyOf" in found:
        parts = [_text(part, definitions) for part in found["anyOf"]]
        constraints = dict.fromkeys(part.constraint for part in parts if part.constraint)
        choices = tuple(choice for part in parts for choice in part.choices)
        return TypeText(" | ".join(part.name for part in parts), ", ".join(constraints), choices)
    if "enum" in found or "const" in found:
        choices = tuple(found.get("enum", [found.get("const")]))
        return TypeText(" | ".join(map(str, choices)), "", choices)
    bounds = {} if "prefixItems" in found else _BOUNDS
    said = [key for key in bounds if key in found and not (key == "pattern" and IN_WORDS in found)]
    constraint = ", ".join(_bound(key, bounds[key], found[key]) for key in said)
    return TypeText(_name(found, definitions), constraint)


def _bound(key: str, text: str, limit: Any) -> str:
    unit = "item" if key.endswith("Items") else "character"
    return text.format(limit, unit if limit == 1 else f"{unit}s")


def _name(found: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    kind = found.get("type", "any")
    inner = found.get("items") or found.get("additionalProperties")
    if kind == "array":
        parts = found.get("prefixItems") or [inner or {}]
        return f"list[{', '.join(str(_text(part, definitions)) for part in parts)}]"
    if kind == "object" and isinstance(inner, Mapping):
        return f"mapping[{_text(inner, definitions)}]"
    if found.get("format") == "path":
        return "path"
    return _NAMES.get(kind, str(kind))


def map_paths(annotation: Any, value: Any, fn: Callable[[str, bool], str]) -> Any:
    """Apply ``fn(text, may_be_name)`` to each ``InputPath`` inside a value."""
    inner, metadata = unwrap(annotation)
    if INPUT_PATH in metadata and isinstance(value, str):
        return fn(value, MAY_BE_NAME in metadata)
    for member in members(inner):
        if isinstance(value, list | tuple):
            value = [map_paths(_element(member, index), item, fn) for index, item in enumerate(value)]
        elif isinstance(value, Mapping):
            value = {key: map_paths(_element(member, 1), item, fn) for key, item in value.items()}
        elif member is not inner:
            value = map_paths(member, value, fn)
    return value


def absolute_value(annotation: Any, node: Node) -> Any:
    """The plain value of a node, its paths made absolute against the files that say them."""
    if isinstance(node, Leaf):
        base = node.origin.base
        return map_paths(annotation, node.value, lambda text, may_be_name: _absolute_text(text, base, may_be_name))
    if isinstance(node, Items):
        return [absolute_value(_element(annotation, index), item) for index, item in enumerate(node.items)]
    assert isinstance(node, Section)
    return {key: absolute_value(_element(annotation, 1), item) for key, item in node.items.items()}


def _absolute_text(text: str, base: Any, may_be_name: bool) -> str:
    """Addresses, and references between the stages of a pipeline, are no paths; a name is one where it exists."""
    if not text or "://" in text or "${" in text:
        return text
    path = absolute(text, base)
    if may_be_name and not text.startswith((".", "/", "~")) and not path.exists():
        return text
    return str(path)


def _element(annotation: Any, index: int) -> Any:
    """The annotation of an item of a list, or (index 1) of a value of a mapping."""
    for member in members(unwrap(annotation)[0]):
        arguments = tuple(part for part in get_args(unwrap(member)[0]) if part is not ...)
        origin = get_origin(unwrap(member)[0])
        if isinstance(origin, type) and issubclass(origin, Sequence | Mapping | set | frozenset):
            return arguments[min(index, len(arguments) - 1)]
    return Any
