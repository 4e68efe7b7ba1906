"""What a config class is: the decorator, the markers of its fields, and the shape of each field."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Final, TypeVar, Union, dataclass_transform, get_args, get_origin

import pydantic
import pydantic.dataclasses
from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

T = TypeVar("T")

IN_WORDS: Final = "patternErrorMessage"
"""Where a JSON schema says a pattern in words: editors show that instead of a regular expression, and so does Clew."""


@dataclass(frozen=True)
class Marker:
    """A word about a field that only Clew reads.

    Args:
        meaning: For people.
        format: What the JSON schema says under ``format``; empty for nothing.
    """

    meaning: str
    format: str = ""

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        made = handler(schema)
        return {**made, "format": self.format} if self.format else made


@dataclass(frozen=True)
class Spelled:
    """Marks a text that is to match a pattern: ``Annotated[str, Spelled("^[a-z]+$", "made of a to z")]``.

    Args:
        pattern: A regular expression; it has to match somewhere, so anchor it.
        words: The same for people, who are never shown the pattern; it goes on after ``must be str``.
    """

    pattern: str
    words: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.str_schema(pattern=self.pattern)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {**handler(schema), IN_WORDS: self.words}


@dataclass(frozen=True)
class Plugin:
    """Marks a field whose class is chosen by ``type:``: a registered name, ``module:Class`` or ``file.py:Class``.

    Args:
        kind: The registry to ask, such as ``"task"``.
        word: Whether a word in the place of the section stands for its ``type``.
    """

    kind: str
    word: bool = False


INPUT_PATH: Final = Marker("a path that is read", "path")
MAY_BE_NAME: Final = Marker("a name, unless a path of that name exists")
NOT_HASHED: Final = Marker("does not change results")
"""``Annotated[T, NOT_HASHED]``: the field does not enter :func:`clew.config.config_hash`."""
ADDED: Final = Marker("enters the hash only where it is not the default")
"""``Annotated[T, ADDED]``: the field came later, and configs that say nothing of it keep the hash that they had."""

BETWEEN_ATTEMPTS: Final = Marker("may change between two attempts")
"""``Annotated[T, BETWEEN_ATTEMPTS]``: ``clew resume RUN key=value`` may say it anew, though it enters the hash: steps
that are done stay what they are, whatever the next ones are made with."""

InputPath = Annotated[str, INPUT_PATH]
"""A path that is read: relative to the file that says it; its content, not its name, enters the hash."""
PathOrName = Annotated[str, INPUT_PATH, MAY_BE_NAME]
"""A path as :data:`InputPath` where it exists or begins with ``.``, ``/`` or ``~``; any other text is a name."""


@dataclass_transform(
    kw_only_default=True,
    frozen_default=True,
    field_specifiers=(pydantic.Field, dataclasses.field),
)
def config(cls: type[T], /) -> type[T]:
    """Make a class a config class: a frozen, keyword-only, validated dataclass that refuses unknown keys.

    The string below a field is its meaning; it appears in ``clew config new`` and ``clew config explain``.
    """
    settings = pydantic.ConfigDict(extra="forbid", use_attribute_docstrings=True, validate_default=False)
    decorate: Callable[[type[T]], Any] = pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=settings)
    made: type[T] = decorate(cls)
    return made


def is_config(cls: object) -> bool:
    """Whether ``cls`` itself carries ``@config``; a subclass that forgot it does not count."""
    return isinstance(cls, type) and "__pydantic_fields__" in vars(cls) and dataclasses.is_dataclass(cls)


@dataclass(frozen=True)
class LeafShape:
    """A value that is no section: a scalar, a list or a mapping of scalars."""

    annotation: Any


@dataclass(frozen=True)
class SectionShape:
    """One config class, or several of which the key ``type`` picks one."""

    classes: tuple[type, ...]


@dataclass(frozen=True)
class PluginShape:
    """A config class that a registry finds by the key ``type``."""

    kind: str
    base: type
    word: bool = False
    """Whether a word in the place of the section stands for its ``type``."""


@dataclass(frozen=True)
class OptionalShape:
    """A section, or nothing."""

    inner: Shape


@dataclass(frozen=True)
class ListShape:
    """A list of sections."""

    item: Shape
    container: type


@dataclass(frozen=True)
class MappingShape:
    """Named sections."""

    item: Shape


Shape = LeafShape | SectionShape | PluginShape | OptionalShape | ListShape | MappingShape


@dataclass(frozen=True)
class FieldSpec:
    """One field of a config class."""

    name: str
    shape: Shape
    annotation: Any
    doc: str
    required: bool
    hashed: bool
    added: bool
    changeable: bool
    """Whether a run may go on with another value."""
    default: Callable[[], Any]
    """Gives the default; only called when the field is not required."""


@cache
def fields_of(cls: type) -> Mapping[str, FieldSpec]:
    """The fields of a config class by name, inherited ones first."""
    # A class that names one defined further down is completed when it is first used.
    pydantic.dataclasses.rebuild_dataclass(cls)
    found: dict[str, pydantic.fields.FieldInfo] = cls.__pydantic_fields__  # type: ignore[attr-defined]
    specs = {name: _spec(name, info, _doc(cls, name)) for name, info in found.items() if info.init is not False}
    return types.MappingProxyType(specs)


def _doc(cls: type, name: str) -> str:
    """The meaning of a field; pydantic reads the strings of a class alone, not those of the classes above it."""
    above = (vars(parent).get("__pydantic_fields__", {}) for parent in cls.__mro__)
    return next((fields[name].description for fields in above if name in fields and fields[name].description), "")


def _spec(name: str, info: pydantic.fields.FieldInfo, doc: str) -> FieldSpec:
    metadata = tuple(info.metadata)
    annotation = Annotated[(info.annotation, *metadata)] if metadata else info.annotation
    return FieldSpec(
        name=name,
        shape=shape_of(annotation),
        annotation=annotation,
        doc=doc,
        required=info.is_required(),
        hashed=NOT_HASHED not in metadata,
        added=ADDED in metadata,
        changeable=BETWEEN_ATTEMPTS in metadata or NOT_HASHED in metadata,
        default=lambda: info.get_default(call_default_factory=True, validated_data={}),
    )


def unwrap(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    """Split ``Annotated[T, ...]`` into ``T`` and its metadata."""
    if get_origin(annotation) is Annotated:
        inner, *metadata = get_args(annotation)
        return inner, tuple(metadata)
    return annotation, ()


def members(annotation: Any) -> tuple[Any, ...]:
    """The members of a union; the annotation itself when it is none."""
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)


def shape_of(annotation: Any) -> Shape:
    """Classify an annotation."""
    inner, metadata = unwrap(annotation)
    some = tuple(member for member in members(inner) if member is not type(None))
    if len(some) < len(members(inner)):
        # The markers of `Annotated[Task | None, Plugin("task")]` speak about the member, not about the union.
        rest = shape_of(Annotated[(Union[some], *metadata)] if metadata else Union[some])  # noqa: UP007
        return LeafShape(annotation) if isinstance(rest, LeafShape) else OptionalShape(rest)
    plugin = next((mark for mark in metadata if isinstance(mark, Plugin)), None)
    if plugin is not None:
        return PluginShape(plugin.kind, inner, plugin.word)
    classes = tuple(unwrap(member)[0] for member in some)
    if all(is_config(member) for member in classes):
        return SectionShape(classes)
    return _container_shape(inner) or LeafShape(annotation)


def _container_shape(annotation: Any) -> Shape | None:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (list, Sequence) or (origin is tuple and arguments[1:] == (...,)):
        item = shape_of(arguments[0])
        return None if isinstance(item, LeafShape) else ListShape(item, tuple if origin is tuple else list)
    if origin in (dict, Mapping):
        item = shape_of(arguments[1])
        return None if isinstance(item, LeafShape) else MappingShape(item)
    return None
