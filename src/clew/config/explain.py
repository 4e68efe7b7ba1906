"""Where a value came from, in words."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import indent
from typing import Any

from clew.config.describe import section_text
from clew.config.leaf import type_text
from clew.config.load import Loaded
from clew.config.origins import Resolved
from clew.config.problems import show, suggest_key
from clew.config.schema import FieldSpec, LeafShape, fields_of, is_config
from clew.errors import ConfigError


def explain(loaded: Loaded, key: str) -> str:
    """Say where the value of a key came from, what it won over, and what it means.

    Args:
        loaded: A loaded config.
        key: A leaf (its whole history) or a section (a line for each leaf); empty for everything.

    Raises:
        ConfigError: There is no such key.
    """
    entries = loaded.origins.below(key) if key else dict(loaded.origins)
    if not entries:
        hint = suggest_key(key, (), loaded.origins)
        raise ConfigError(f"there is no key {key!r}", hint=hint)
    if list(entries) == [key]:
        return _history(key, entries[key], field_at(loaded.value, key))
    width = max(len(name) for name in entries)
    return "\n".join(f"{name:<{width}}  {show(entry.value)}  ({_place(entry)})" for name, entry in entries.items())


def _history(key: str, entry: Resolved, spec: FieldSpec | None) -> str:
    steps = [(entry.value, entry.origin), *entry.shadowed]
    width = max(len(origin.where) for _, origin in steps)
    layers = max(len(origin.layer) for _, origin in steps)
    lines = [f"{key} = {show(entry.value)}"]
    for index, (value, origin) in enumerate(steps):
        mark = "" if index == 0 else "  shadowed"
        lines.append(f"  {origin.layer:<{layers}}  {origin.where:<{width}}  {show(value)}{mark}")
    if spec is not None:
        lines.append(indent(spec.doc, "  "))
        lines.append(
            f"  {type_text(spec.annotation) if isinstance(spec.shape, LeafShape) else section_text(spec.shape)}"
        )
    return "\n".join(line for line in lines if line.strip())


def _place(entry: Resolved) -> str:
    name = entry.origin.where
    return f"default of {name}" if entry.origin.layer == "default" else name


def field_at(value: Any, key: str) -> FieldSpec | None:
    """Return the field at a dotted key of a config; nothing for the ``type`` of a plug-in and the inside of leaves."""
    name, _, rest = key.partition(".")
    if isinstance(value, list | tuple):
        return field_at(value[int(name)], rest)
    if isinstance(value, Mapping):
        name = max((known for known in value if key.startswith(f"{known}.")), key=len, default="")
        return field_at(value[name], key[len(name) + 1 :]) if name else None
    cls: type = type(value)
    spec = fields_of(cls).get(name) if is_config(cls) else None
    if spec is None or not rest or isinstance(spec.shape, LeafShape):
        return spec
    return field_at(getattr(value, name), rest)
