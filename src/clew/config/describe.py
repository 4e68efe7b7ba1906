"""The schema in words: every key with its type, default, constraint and meaning."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from clew.config.leaf import plain_value, type_text
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
from clew.config.tree import join


@dataclass(frozen=True)
class Described:
    """One key of a schema.

    Args:
        key: Dotted; ``*`` stands for an index or a name that the user chooses.
        type: In words, such as ``float | null``; a section is called ``section``, a plug-in by its kind.
        constraint: Such as ``> 0``; empty when there is none.
        required: Whether it has no default.
        default: As a plain value; ``None`` for sections and required keys.
        doc: Its meaning.
        hashed: Whether it can change results.
        section: Whether it holds keys of its own.
    """

    key: str
    type: str
    constraint: str
    required: bool
    default: Any
    doc: str
    hashed: bool
    section: bool


def describe(cls: type) -> list[Described]:
    """All keys of a config class in the order of the schema; of a union, the keys of each of its classes."""
    return list(_walk(cls, "", (), True))


@cache
def known_keys(cls: type) -> tuple[str, ...]:
    """All dotted keys of a config class, for suggestions."""
    return tuple(dict.fromkeys(found.key for found in describe(cls)))


def _walk(cls: type, prefix: str, above: tuple[type, ...], hashed: bool) -> Iterator[Described]:
    for spec in fields_of(cls).values():
        key = join(prefix, spec.name)
        counts = hashed and spec.hashed  # what lies in a section that is not hashed is not, either
        yield _described(spec, key, counts)
        yield from _inside(spec.shape, key, (*above, cls), counts)


def _inside(shape: Shape, key: str, above: tuple[type, ...], hashed: bool) -> Iterator[Described]:
    if isinstance(shape, OptionalShape):
        yield from _inside(shape.inner, key, above, hashed)
    elif isinstance(shape, ListShape | MappingShape):
        yield from _inside(shape.item, join(key, "*"), above, hashed)
    elif isinstance(shape, SectionShape):
        seen: set[str] = set()
        # A class that contains itself is described once.
        for cls in (cls for cls in shape.classes if cls not in above):
            for found in _walk(cls, key, above, hashed):
                if found.key not in seen:
                    seen.add(found.key)
                    yield found
    elif isinstance(shape, PluginShape):
        doc = f"Which {shape.kind}: a registered name, module:Class or file.py:Class."
        yield Described(join(key, "type"), "str", "", True, None, doc, hashed, False)


def _described(spec: FieldSpec, key: str, hashed: bool) -> Described:
    leaf = isinstance(spec.shape, LeafShape)
    text = type_text(spec.shape.annotation) if isinstance(spec.shape, LeafShape) else None
    return Described(
        key=key,
        type=text.name if text else section_text(spec.shape),
        constraint=text.constraint if text else "",
        required=spec.required,
        default=plain_value(spec.default()) if leaf and not spec.required else None,
        doc=spec.doc,
        hashed=hashed,
        section=not leaf,
    )


def section_text(shape: Shape) -> str:
    """A shape in words."""
    if isinstance(shape, OptionalShape):
        return f"{section_text(shape.inner)} | null"
    if isinstance(shape, ListShape):
        return f"list of {section_text(shape.item)}s"
    if isinstance(shape, MappingShape):
        return f"mapping of {section_text(shape.item)}s"
    return shape.kind if isinstance(shape, PluginShape) else "section"
