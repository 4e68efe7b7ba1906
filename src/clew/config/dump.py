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

Name = Callable[[str, type], str]


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


def config_hash(config: Any) -> str:
    """Hash what a config means: SHA-256 in hex over everything that can change results.

    Fields marked ``NOT_HASHED`` stay out. An ``InputPath`` counts by the content of its file or folder, a plug-in
    from a file by the content of that file, so moving things changes nothing and editing them does.
    """
    text = json.dumps(_meaning(config), sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _meaning(config: Any) -> dict[str, Any]:
    return {spec.name: _meaning_of(spec, getattr(config, spec.name)) for spec in _fields(config) if spec.hashed}


def _meaning_of(spec: FieldSpec, value: Any) -> Any:
    if isinstance(spec.shape, LeafShape):
        return map_paths(spec.annotation, plain_value(value), _path_meaning)
    return _section_meaning(spec.shape, value)


def _section_meaning(shape: Shape, value: Any) -> Any:
    if isinstance(shape, OptionalShape):
        return None if value is None else _section_meaning(shape.inner, value)
    if isinstance(shape, PluginShape):
        return {"type": identity_of(type(value)), **_meaning(value)}
    if is_config(type(value)):
        return _meaning(value)
    if isinstance(value, Mapping):
        return {str(key): _section_meaning(shape.item, item) for key, item in value.items()}  # type: ignore[union-attr]
    return [_section_meaning(shape.item, item) for item in value]  # type: ignore[union-attr]


def _path_meaning(path: str, may_be_name: bool) -> str:
    """What a path means is its content; what could be a name was made absolute if it is none."""
    return path if may_be_name and not Path(path).is_absolute() else content_digest(path)


def content_digest(path: str) -> str:
    """SHA-256 in hex of a file, or of a folder's files with their names; the text itself when nothing is there."""
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
    return iter(sorted(file for file in folder.rglob("*") if file.is_file()))


def _file_digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
