"""Which keys must be said, as a JSON schema that asks for nothing else.

It stands apart from the types, because it only holds for a file with no other file below it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clew.config.choose import tags
from clew.config.schema import (
    FieldSpec,
    LeafShape,
    ListShape,
    MappingShape,
    OptionalShape,
    PluginShape,
    SectionShape,
    Shape,
    fields_of,
)

Classes = Mapping[str, Mapping[str, type]]


def needs(cls: type, classes: Classes, above: tuple[type, ...] = ()) -> dict[str, Any]:
    """Say what an instance of a class needs; nothing when every key has a default.

    Args:
        cls: The config class.
        classes: For each kind of plug-in: what stands in ``type``, and the class that it means.
        above: The classes around this one; a class inside of itself is not looked at again.
    """
    if cls in above:
        return {}
    inside = {spec.name: _field(spec, classes, (*above, cls)) for spec in fields_of(cls).values()}
    required = [spec.name for spec in fields_of(cls).values() if _must_be_said(spec, inside[spec.name])]
    properties = {name: found for name, found in inside.items() if found}
    return {**({"required": required} if required else {}), **({"properties": properties} if properties else {})}


def _must_be_said(spec: FieldSpec, inside: Mapping[str, Any]) -> bool:
    """A section whose class fills in every key need not be there."""
    alone = isinstance(spec.shape, SectionShape) and len(spec.shape.classes) == 1
    return spec.required and (not alone or "required" in inside)


def _field(spec: FieldSpec, classes: Classes, above: tuple[type, ...]) -> dict[str, Any]:
    given = None if spec.required else spec.default()
    return _shape(spec.shape, given, classes, above, word=spec.required)


def _shape(shape: Shape, given: Any, classes: Classes, above: tuple[type, ...], *, word: bool) -> dict[str, Any]:
    """What a shape needs; an instance that is ``given`` supplies whatever is left out."""
    if isinstance(shape, LeafShape):
        return {}
    if isinstance(shape, OptionalShape):
        return _shape(shape.inner, given, classes, above, word=word or given is None)
    if isinstance(shape, ListShape | MappingShape):
        item = _shape(shape.item, None, classes, above, word=True)
        return {"items" if isinstance(shape, ListShape) else "additionalProperties": item} if item else {}
    if isinstance(shape, SectionShape) and len(shape.classes) == 1:
        return {} if given is not None else needs(shape.classes[0], classes, above)
    known = classes.get(shape.kind, {}) if isinstance(shape, PluginShape) else tags(shape)
    chosen = [_when(tag, needs(cls, classes, above)) for tag, cls in known.items() if cls is not type(given)]
    chosen = [found for found in chosen if found["then"]]
    return {**({"required": ["type"]} if word else {}), **({"allOf": chosen} if chosen else {})}


def _when(tag: str, then: dict[str, Any]) -> dict[str, Any]:
    # Without `type: object` the condition would hold for everything that is no object.
    return {"if": {"type": "object", "properties": {"type": {"const": tag}}, "required": ["type"]}, "then": then}
