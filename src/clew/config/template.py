"""The file that ``clew config new`` writes: every key, what it may be and what it means."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import pydantic

from clew.config.choose import tags
from clew.config.describe import section_text
from clew.config.dump import dump
from clew.config.leaf import adapter, plain_value, type_text, validate
from clew.config.plugins import Registry
from clew.config.scalars import to_yaml
from clew.config.schema import (
    FieldSpec,
    LeafShape,
    ListShape,
    MappingShape,
    OptionalShape,
    PluginShape,
    SectionShape,
    fields_of,
    is_config,
)

_WIDTH = 100
_WORDS = (
    *("change_me", "changeme", "ChangeMe", "change.me", "change/me", "change:me", "a1", "a", "1", "10", "1.0", "1.0.0"),
    *("2000-01-01", "12:00", "00:00:00", "#000000", "a@b.org", "https://example.org", "/change/me", "./change-me"),
)
"""Tried in this order where a pattern refuses ``change-me``."""


def template(cls: type, *, head: Mapping[str, Any], registries: Mapping[str, Registry] | None = None) -> str:
    """Write a commented config file that loads back to the defaults.

    Required keys hold an example and are marked ``# required``.

    Args:
        cls: The config class.
        head: Plain values that stand first, such as ``{"job": "sft"}``; a key of the class gives its value instead.
        registries: Where the class of a plug-in is found that ``head`` or a default names.
    """
    writer = _Writer(registries or {})
    free = {key: value for key, value in head.items() if key not in fields_of(cls)}
    said = {key: value for key, value in head.items() if key in fields_of(cls)}
    lines = [*_comment(cls.__doc__ or "", ""), *to_yaml(free).splitlines()] if free else _comment(cls.__doc__ or "", "")
    return "\n".join([*lines, *writer.section(cls, said, None, "")]) + "\n"


class _Writer:
    """Walks a schema and its values together; holds the registries."""

    def __init__(self, registries: Mapping[str, Registry]) -> None:
        self.registries = registries

    def section(self, cls: type, said: Mapping[str, Any], given: Any, indent: str) -> Iterator[str]:
        """The lines of a section's keys."""
        for spec in fields_of(cls).values():
            default = None if given is None and spec.required else _default(spec, given)
            required = spec.required and given is None
            yield from _comment(spec.doc, indent)
            yield from self._field(spec, said.get(spec.name), default, required, indent)

    def _field(self, spec: FieldSpec, said: Any, default: Any, required: bool, indent: str) -> Iterator[str]:
        shape = spec.shape
        if isinstance(shape, LeafShape):
            text = type_text(shape.annotation)
            value = said if said is not None else example(shape.annotation) if required else plain_value(default)
            yield from _line(spec.name, value, f"{'required; ' if required else ''}{text}", indent)
            return
        optional = isinstance(shape, OptionalShape)
        shape = shape.inner if isinstance(shape, OptionalShape) else shape
        note = f"{'required; ' if required else ''}{section_text(spec.shape)}"
        if isinstance(shape, ListShape | MappingShape) or (optional and default is None and said is None):
            empty: Any = None if optional else [] if isinstance(shape, ListShape) else {}
            value = said if said is not None else _dumped(default, self.registries) if default else empty
            yield from _line(spec.name, value, note, indent)
            if optional and isinstance(shape, SectionShape):
                yield from self._off(spec.name, shape.classes[0], indent)
            return
        yield f"{indent}{spec.name}:{'  # required' if required else ''}"
        yield from self._inside(shape, said or {}, default, f"{indent}  ")

    def _inside(self, shape: Any, said: Mapping[str, Any], default: Any, indent: str) -> Iterator[str]:
        if isinstance(shape, PluginShape):
            yield from self._plugin(shape, said, default, indent)
            return
        by_tag = tags(shape) if len(shape.classes) > 1 else {}
        first = type(default) if default is not None else shape.classes[0]
        cls = by_tag.get(str(said.get("type")), first)
        if by_tag:
            yield f"{indent}# type: one of {', '.join(by_tag)}"
        yield from self.section(cls, said, default if type(default) is cls else None, indent)

    def _plugin(self, shape: PluginShape, said: Mapping[str, Any], default: Any, indent: str) -> Iterator[str]:
        registry = self.registries.get(shape.kind)
        names = registry.names() if registry else []
        fallback = dump_name(registry, type(default)) if default is not None else (names or ["path/file.py:Class"])[0]
        ref = said.get("type", fallback)
        mark = "" if default is not None else "required; "
        options = ", ".join([*names, "module:Class", "path/file.py:Class"])
        yield from _line("type", ref, f"{mark}one of {options}", indent)
        cls = registry.resolve(ref) if registry else None
        if is_config(cls):
            assert isinstance(cls, type)
            yield from self.section(cls, said, default if type(default) is cls else None, indent)

    def _off(self, name: str, cls: type, indent: str) -> Iterator[str]:
        """An optional section that is switched off, as comments."""
        yield f"{indent}# {name}:"
        for line in self.section(cls, {}, None, f"{indent}  "):
            yield f"{indent}# {line[len(indent) :]}"


def dump_name(registry: Registry | None, cls: type) -> str:
    """What a plug-in's class is called."""
    return registry.name_of(cls) if registry else f"{cls.__module__}:{cls.__qualname__}"


def example(annotation: Any) -> Any:
    """A value that a required leaf accepts, where one is found that fits its type, bounds and pattern."""
    schema = adapter(annotation).json_schema()
    options = [*schema.get("examples", ()), *type_text(annotation).choices, *_candidates(schema)]
    return next((option for option in options if _fits(annotation, option)), options[-1])


def _candidates(schema: Mapping[str, Any]) -> list[Any]:
    """Values to try; the last one stands there when none fits."""
    first = schema["anyOf"][0] if "anyOf" in schema else schema
    kind = first.get("type")
    if kind in ("integer", "number"):
        return [_number(first, kind)]
    if kind == "array":
        parts = first.get("prefixItems") or [first.get("items", {})] * first.get("minItems", 0)
        return [[_candidates(part)[0] for part in parts]]
    if kind in ("boolean", "object"):
        return [False if kind == "boolean" else {}]
    longer = "x" * first.get("minLength", 0)
    shorter = "change-me"[: first.get("maxLength")]
    return ["change-me", longer, shorter, *_WORDS, *(word.upper() for word in _WORDS), "change-me"]


def _fits(annotation: Any, value: Any) -> bool:
    try:
        validate(annotation, value)
    except pydantic.ValidationError:
        return False
    return True


def _number(schema: Mapping[str, Any], kind: str) -> float:
    least = schema.get("minimum", schema.get("exclusiveMinimum"))
    most = schema.get("maximum", schema.get("exclusiveMaximum"))
    if least is not None and most is not None:
        value = (least + most) / 2
    elif least is not None:
        value = least if "minimum" in schema else least + 1
    else:
        value = 1 if most is None else most if "maximum" in schema else most - 1
    return int(value) if kind == "integer" else float(value)


def _default(spec: FieldSpec, given: Any) -> Any:
    return spec.default() if given is None else getattr(given, spec.name)


def _dumped(value: Any, registries: Mapping[str, Registry]) -> Any:
    if isinstance(value, Mapping):
        return {key: dump(item, registries) for key, item in value.items()}
    return [dump(item, registries) for item in value]


def _comment(text: str, indent: str) -> list[str]:
    lines = [line for part in textwrap.dedent(text).strip().splitlines() for line in textwrap.wrap(part, _WIDTH)]
    return [f"{indent}# {line}" for line in lines]


def _line(name: str, value: Any, note: str, indent: str) -> Iterator[str]:
    first, *rest = to_yaml({name: value}).splitlines()
    # A comment cannot follow the first line of a block text, where it would become a part of the text.
    if first.endswith(("|", "|-", "|+")):
        yield f"{indent}# {note}"
        yield f"{indent}{first}"
    else:
        yield f"{indent}{first}  # {note}"
    for line in rest:
        yield f"{indent}{line}"
