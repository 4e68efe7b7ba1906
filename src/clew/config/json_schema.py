"""Config classes as JSON schema (2020-12), by which an editor completes, explains and checks what people write.

The schema accepts what :func:`clew.config.load` accepts in one file: ``null`` stands for the default, single items of a
list are addressed by their number, and required keys may be left to what the file extends. What other layers say, and
rules across fields, only ``clew check`` can know.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pydantic

from clew.config.choose import tags
from clew.config.leaf import adapter, plain_value
from clew.config.needs import needs
from clew.config.plugins import Registry
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
    is_config,
)
from clew.errors import ClewError

DIALECT = "https://json-schema.org/draft/2020-12/schema"
REFERENCE = r"\$\{[^}]+\}"
_NULL = {"type": "null"}

Schema = dict[str, Any]
Plugins = Mapping[str, Mapping[str, type]]
"""For each kind: what stands in ``type``, and the class that it means."""


def json_schema(
    cls: type,
    *,
    head: Mapping[str, Schema] | None = None,
    registries: Mapping[str, Registry] | None = None,
    plugins: Plugins | None = None,
) -> Schema:
    """Describe the file of a config class.

    Args:
        cls: The config class.
        head: Schemas of top-level keys that are not the class's, such as ``job``.
        registries: Kind to registry; the fields of every registered class are described.
        plugins: More classes for each kind, by what stands in ``type``, such as ``dates.py:Dates``.
    """
    writer = SchemaWriter(registries or {}, plugins or {})
    made = writer.root(cls, head or {})
    return {"$schema": DIALECT, "title": cls.__name__, **made, "$defs": writer.definitions}


class SchemaWriter:
    """Walks the shapes of classes; collects a definition for each class on the way.

    Args:
        registries: Kind to registry.
        plugins: More classes for each kind.
        references: Whether ``${...}`` may stand in the place of any value, as it may in a pipeline.
    """

    def __init__(self, registries: Mapping[str, Registry], plugins: Plugins, *, references: bool = False) -> None:
        self.classes = {kind: {**_known(registry), **plugins.get(kind, {})} for kind, registry in registries.items()}
        self.references = references
        self.definitions: dict[str, Schema] = {}
        self._names: dict[tuple[type, bool], str] = {}

    def literal(self) -> SchemaWriter:
        """The same writer for parts in which no references may stand; it adds to the same definitions."""
        made = copy.copy(self)
        made.references = False
        return made

    def keys(self, cls: type) -> dict[str, Schema]:
        """The schema of each key of a class."""
        properties: dict[str, Schema] = self._section(cls)["properties"]
        return properties

    def root(self, cls: type, head: Mapping[str, Schema], lower: Sequence[str] = ("extends", "preset")) -> Schema:
        """The schema of a whole file, or of a part that may extend a file.

        Args:
            cls: The config class.
            head: Schemas of the keys that are not the class's.
            lower: The keys that bring other layers; without them, required keys must be there.
        """
        section = self._section(cls)
        missing = needs(cls, self.classes)
        brought = {"if": {"anyOf": [{"required": [key]} for key in lower]}, "else": missing} if missing else {}
        return {**section, "properties": {**head, **section["properties"]}, **brought}

    def _section(self, cls: type, *, plugin: bool = False) -> Schema:
        word: dict[str, Schema] = {"type": {}} if plugin else {}
        fields = {spec.name: self._field(spec) for spec in fields_of(cls).values()}
        text = " ".join((cls.__doc__ or "").split())
        about = {"description": text} if text else {}
        return {**about, "type": "object", "properties": {**word, **fields}, "additionalProperties": False}

    def _field(self, spec: FieldSpec) -> Schema:
        made = self._shape(spec.shape)
        if not spec.required or isinstance(spec.shape, SectionShape):
            made = either(made, _NULL)
        about = {"description": spec.doc} if spec.doc else {}
        if not spec.required and isinstance(spec.shape, LeafShape):
            about["default"] = plain_value(spec.default())
        return {**about, **made}

    def _shape(self, shape: Shape) -> Schema:
        if isinstance(shape, LeafShape):
            return self._leaf(shape.annotation)
        if isinstance(shape, OptionalShape):
            return either(self._shape(shape.inner), _NULL)
        if isinstance(shape, ListShape):
            item = self._shape(shape.item)
            return either({"type": "array", "items": item}, _by_number(item))
        if isinstance(shape, MappingShape):
            return {"type": "object", "additionalProperties": self._shape(shape.item)}
        if isinstance(shape, PluginShape):
            return self._plugin(shape)
        return self._define(shape.classes[0]) if len(shape.classes) == 1 else self._union(shape)

    def _leaf(self, annotation: Any) -> Schema:
        try:
            made = adapter(annotation).json_schema()
        except pydantic.errors.PydanticInvalidForJsonSchema:
            return {}
        self.definitions.update(made.pop("$defs", {}))
        if made.get("type") == "array":
            made = either(made, _by_number(made.get("items", {})))
        text = {"type": "string", "pattern": REFERENCE}
        takes_any_text = made.get("type") == "string" and set(made) <= {"type", "format", "minLength"}
        return made if takes_any_text or not self.references else either(made, text)

    def _union(self, shape: SectionShape) -> Schema:
        by_tag = tags(shape)
        any_of = {"anyOf": [self._define(cls) for cls in shape.classes]}
        unsaid = {"if": {"type": "object", "not": {"required": ["type"]}}, "then": any_of}
        chosen = [when({"type": {"const": tag}}, self._define(cls)) for tag, cls in by_tag.items()]
        return {"type": "object", "properties": {"type": {"enum": list(by_tag)}}, "allOf": [*chosen, unsaid]}

    def _plugin(self, shape: PluginShape) -> Schema:
        known = self.classes.get(shape.kind, {})
        doc = f"Which {shape.kind}: a registered name, module:Class or file.py:Class."
        word = {"description": doc, "anyOf": [{"enum": list(known)}, {"type": "string", "pattern": ":"}]}
        chosen = [when({"type": {"const": name}}, self._define(cls, plugin=True)) for name, cls in known.items()]
        made = {"type": "object", "properties": {"type": word}, **({"allOf": chosen} if chosen else {})}
        return either(made, word) if shape.word else made

    def _define(self, cls: type, *, plugin: bool = False) -> Schema:
        """A reference to the definition of a class; a class may contain itself."""
        if (cls, plugin) not in self._names:
            same = sum(name.partition("-")[0] == cls.__name__ for name in self._names.values())
            name = cls.__name__ if not same else f"{cls.__name__}-{same + 1}"
            self._names[cls, plugin] = name
            self.definitions[name] = {}
            self.definitions[name] = self._section(cls, plugin=plugin)
        return {"$ref": f"#/$defs/{self._names[cls, plugin]}"}


def either(*options: Schema) -> Schema:
    """Any of several schemas, as flat as it can be said."""
    flat = [part for option in options for part in (option["anyOf"] if list(option) == ["anyOf"] else [option])]
    some = [part for index, part in enumerate(flat) if part not in flat[:index]]
    if {} in some:
        return {}
    first, rest = some[0], some[1:]
    # `type: [number, "null"]` reads better in an editor than a choice of two schemas.
    if rest == [_NULL] and isinstance(first.get("type"), str) and not {"const", "enum"} & set(first):
        return {**first, "type": [first["type"], "null"]}
    return {"anyOf": some} if rest else first


def when(values: Mapping[str, Schema], then: Schema) -> Schema:
    """A schema for the objects that have these values."""
    # Without `type: object` and `required` the condition would hold for whatever says nothing.
    return {"if": {"type": "object", "properties": dict(values), "required": list(values)}, "then": then}


def _by_number(item: Schema) -> Schema:
    """``{0: ..., 2: ...}``: single items of a list that a lower layer says."""
    return {
        "type": "object",
        "patternProperties": {"^[0-9]+$": item},
        "additionalProperties": False,
        "minProperties": 1,
    }


def _known(registry: Registry) -> dict[str, type]:
    """The registered classes; one that cannot be imported here is left out."""
    return dict(_resolved(registry))


def _resolved(registry: Registry) -> Iterator[tuple[str, type]]:
    for name in registry.names():
        try:
            found = registry.resolve(name)
        except ClewError:
            continue
        if is_config(found):
            yield name, found
