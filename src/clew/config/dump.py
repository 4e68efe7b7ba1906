"""Configs as plain values that reload to themselves, and the hash of what they mean."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from clew.config.leaf import map_paths, plain_value
from clew.config.plugins import Registry, identity_of, reference_of
from clew.config.schema import FieldSpec, LeafShape, OptionalShape, PluginShape, Shape, fields_of, is_config
from clew.config.tree import join

Name = Callable[[str, type], str]
Digest = Callable[[str], str]

SAYS_CONTENT = "content.sha256"
"""The file in which a folder that Clew made says what it holds, as a digest."""


def dump(config: Any, registries: Mapping[str, Registry] | None = None) -> dict[str, Any]:
    """Write a config as plain mappings, lists and scalars; ``load(dump(c)).value == c``.

    Args:
        config: An instance of a config class.
        registries: Give plug-ins their registered names; without them they are called ``module:Class``.

    Raises:
        ConfigError: A plug-in's class was made inside a function.
    """
    known = registries or {}

    def name(kind: str, cls: type) -> str:
        return known[kind].name_of(cls) if kind in known else reference_of(cls)

    return _dump(config, name)


def _dump(config: Any, name: Name) -> dict[str, Any]:
    return {spec.name: _dump_value(spec.shape, getattr(config, spec.name), name) for spec in _fields(config)}


def _fields(config: Any) -> list[FieldSpec]:
    cls: type = type(config)
    return list(fields_of(cls).values())


def _dump_value(shape: Shape, value: Any, name: Name) -> Any:
    if isinstance(shape, LeafShape) or value is None:
        return plain_value(value)
    if isinstance(shape, OptionalShape):
        return _dump_value(shape.inner, value, name)
    if isinstance(shape, PluginShape):
        return {"type": name(shape.kind, type(value)), **_dump(value, name)}
    if is_config(type(value)):
        return _dump(value, name)
    if isinstance(value, Mapping):
        return {str(key): _dump_value(shape.item, item, name) for key, item in value.items()}  # type: ignore[union-attr]
    return [_dump_value(shape.item, item, name) for item in value]  # type: ignore[union-attr]


def config_hash(config: Any, digest: Digest | None = None) -> str:
    """Hash what a config means: SHA-256 in hex over everything that can change results.

    Fields marked ``NOT_HASHED`` stay out, and those marked ``ADDED`` while they have their default. An ``InputPath``
    counts by the content of its file or folder, a plug-in from a file by the content of that file, so moving things
    changes nothing and editing them does.

    Args:
        config: An instance of a config class.
        digest: What says the content of a path; None is :func:`content_digest`.
    """
    text = json.dumps(_meaning(config, digest or content_digest), sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _meaning(config: Any, digest: Digest) -> dict[str, Any]:
    values = [(spec, getattr(config, spec.name)) for spec in _fields(config) if spec.hashed]
    return {
        spec.name: _meaning_of(spec, value, digest)
        for spec, value in values
        if not (spec.added and value == spec.default())
    }


def _meaning_of(spec: FieldSpec, value: Any, digest: Digest) -> Any:
    if isinstance(spec.shape, LeafShape):
        return map_paths(spec.annotation, plain_value(value), lambda path, named: _path_meaning(path, named, digest))
    return _section_meaning(spec.shape, value, digest)


def _section_meaning(shape: Shape, value: Any, digest: Digest) -> Any:
    if isinstance(shape, OptionalShape):
        return None if value is None else _section_meaning(shape.inner, value, digest)
    if isinstance(shape, PluginShape):
        return {"type": identity_of(type(value)), **_meaning(value, digest)}
    if is_config(type(value)):
        return _meaning(value, digest)
    item_shape: Shape = shape.item  # type: ignore[union-attr]
    if isinstance(value, Mapping):
        return {str(key): _section_meaning(item_shape, item, digest) for key, item in value.items()}
    return [_section_meaning(item_shape, item, digest) for item in value]


def _path_meaning(path: str, may_be_name: bool, digest: Digest) -> str:
    """What a path means is its content; what could be a name was made absolute if it is none."""
    return path if _is_name(path, may_be_name) else digest(path)


def _is_name(path: str, may_be_name: bool) -> bool:
    return may_be_name and not Path(path).is_absolute()


def input_digests(config: Any, digest: Digest | None = None) -> dict[str, Any]:
    """The content of every path that a config reads.

    Args:
        config: An instance of a config class.
        digest: What says the content of a path; None is :func:`content_digest`.

    Returns:
        Dotted key to SHA-256 in hex (a list where the key holds several paths); a path where nothing is stays as it is.
    """
    return dict(_digests(config, "", digest or content_digest))


def _digests(value: Any, key: str, digest: Digest) -> Iterator[tuple[str, Any]]:
    if is_config(type(value)):
        for spec in _fields(value):
            inner, full = getattr(value, spec.name), join(key, spec.name)
            found = _leaf_digests(spec, inner, digest) if isinstance(spec.shape, LeafShape) else []
            if found:
                yield full, found if isinstance(inner, list | tuple | Mapping) else found[0]
            elif not isinstance(spec.shape, LeafShape):
                yield from _digests(inner, full, digest)
    elif isinstance(value, Mapping | list | tuple):
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for name, item in items:
            yield from _digests(item, join(key, str(name)), digest)


def _leaf_digests(spec: FieldSpec, value: Any, digest: Digest) -> list[str]:
    found: list[str] = []

    def note(path: str, may_be_name: bool) -> str:
        if path and not _is_name(path, may_be_name):
            found.append(digest(path))
        return path

    map_paths(spec.annotation, plain_value(value), note)
    return found


def unhashed_keys(config: Any) -> Iterator[str]:
    """Dotted keys of the fields that stay out of the hash; what lies below them stays out too."""
    return _keys_of(config, lambda spec: not spec.hashed)


def changeable_keys(config: Any) -> Iterator[str]:
    """Dotted keys of the fields that a run may have anew between two attempts; so may what lies below them."""
    return _keys_of(config, lambda spec: spec.changeable)


def _keys_of(config: Any, holds: Callable[[FieldSpec], bool]) -> Iterator[str]:
    if is_config(type(config)):
        for spec in _fields(config):
            inner = iter([""]) if holds(spec) else _keys_of(getattr(config, spec.name), holds)
            yield from (join(spec.name, key) for key in inner)
    elif isinstance(config, Mapping | list | tuple):
        for name, item in config.items() if isinstance(config, Mapping) else enumerate(config):
            yield from (join(str(name), key) for key in _keys_of(item, holds))


def content_digest(path: str) -> str:
    """SHA-256 in hex of a file, or of a folder's files with their names; the text itself when nothing is there.

    A folder that holds a file :data:`SAYS_CONTENT` counts by that file alone: it can be too large to be read each time.
    """
    place = Path(path)
    if place.is_file():
        return _file_digest(place)
    if not path or not place.is_dir():
        return path
    whole = hashlib.sha256()
    for file in _files(place):
        whole.update(f"{file.relative_to(place).as_posix()}\0{_file_digest(file)}\0".encode())
    return whole.hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    said = {file.parent for file in files if file.name == SAYS_CONTENT}
    return (file for file in files if file.name == SAYS_CONTENT or said.isdisjoint(file.parents))


def _file_digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
