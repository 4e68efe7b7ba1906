"""The layers below and above a file: what it extends, presets, the workspace's environment, the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from clew.config.merge import merge_all
from clew.config.plugins import absolute
from clew.config.source import display, read_file, read_value
from clew.config.tree import Items, Leaf, Node, Origin, Section, Tree, children, find, join, plain, tree_of, without
from clew.errors import ConfigError, did_you_mean


def file_layers(path: Path) -> list[Tree]:
    """Read everything that a file extends, the lowest first, and the file itself.

    Raises:
        ConfigError: A file cannot be read, or the chain comes back to itself.
    """
    return _extended(read_file(path), (path.resolve(),))


def mapping_layers(values: Mapping[str, Any]) -> list[Tree]:
    """Everything that a mapping extends (relative to the current folder), the lowest first, and the mapping itself."""
    tree = tree_of(values, Origin("file", "the given config", Path.cwd()))
    assert isinstance(tree, Section)
    return _extended(tree, ())


def expanded(tree: Tree) -> Tree:
    """Lay a part of a file over everything that its own ``extends`` names.

    Raises:
        ConfigError: As :func:`file_layers`.
    """
    return merge_all(_extended(tree, ()))


def _extended(tree: Tree, chain: tuple[Path, ...]) -> list[Tree]:
    node = tree.items.get("extends")
    if node is None or plain(node) is None:
        return [without(tree, ("extends",))]
    names = plain(node) if isinstance(plain(node), list) else [plain(node)]
    bases = [layer for name in names for layer in _base(name, node.origin, chain)]
    return [*bases, without(tree, ("extends",))]


def _base(name: object, origin: Origin, chain: tuple[Path, ...]) -> list[Tree]:
    if not isinstance(name, str):
        raise ConfigError(f"'extends' must be a file or a list of files, not {name!r}", where=origin.where)
    path = absolute(name, origin.base)
    if path.resolve() in chain:
        circle = [*chain[chain.index(path.resolve()) :], path.resolve()]
        text = " -> ".join(display(step) for step in circle)
        raise ConfigError(f"'extends' goes in a circle: {text}", where=origin.where)
    if not path.is_file():
        raise ConfigError(f"'extends' names {name!r}, which does not exist", where=origin.where)
    return _extended(read_file(path), (*chain, path.resolve()))


def from_layer(tree: Tree, places: Mapping[str, str]) -> Tree:
    """Make what another file or run says the layer ``from``, to lie below everything that is said here.

    Args:
        tree: The other config.
        places: Dotted key to the place that said it there; other values keep the place that they have.
    """
    made = as_layer(tree, "from", places)
    assert isinstance(made, Section)
    return made


def as_layer(node: Node, layer: str, places: Mapping[str, str] | None = None, key: str = "") -> Node:
    """The same values as a layer of another name; what they won over is left behind.

    Args:
        node: A part of a tree.
        layer: The name.
        places: Dotted key to the place of its value, where that is not the one that the node knows.
        key: The dotted key of the node.
    """
    known = places or {}
    # A list is one leaf here, while each of its items may have come from a place of its own.
    where = known.get(key) or known.get(join(key, "0")) or node.origin.where
    origin = replace(node.origin, layer=layer, where=where)
    if isinstance(node, Leaf):
        return Leaf(node.value, origin)
    made = {name: as_layer(item, layer, places, join(key, name)) for name, item in children(node)}
    return Items(tuple(made.values()), origin) if isinstance(node, Items) else Section(made, origin)


def environment_layer(path: Path, job: str) -> Tree | None:
    """What a workspace file says under ``environment: {<job>: ...}``; nothing when it says nothing.

    Raises:
        ConfigError: The file cannot be read, or the entry is no mapping.
    """
    node = find(read_file(path, "environment"), "environment")
    if node is None or plain(node) is None:
        return None
    if not isinstance(node, Section):
        raise ConfigError("'environment' must be a mapping of job names", where=node.origin.where)
    layer = node.items.get(job)
    if layer is None or plain(layer) is None:
        return None
    if not isinstance(layer, Section):
        raise ConfigError(f"'environment.{job}' must be a section", where=layer.origin.where)
    return layer


def override_layer(overrides: Sequence[str]) -> Tree | None:
    """What the command line says: ``training.lr=1e-4``, ``mix.0.weight=2``, ``validation=null``.

    Raises:
        ConfigError: An argument is not of the form ``key=value``, or its value is not YAML.
    """
    layers = [_override(text) for text in overrides]
    return merge_all(layers) if layers else None


def _override(text: str) -> Tree:
    origin = Origin("command line", "command line", Path.cwd())
    key, equals, value = text.partition("=")
    names = key.strip().split(".")
    if not equals or not all(names):
        raise ConfigError(f"{text!r} is not of the form key=value", where=origin.where, hint="such as training.lr=1e-4")
    if names[0] == "extends":
        raise ConfigError("'extends' can only stand in a file", where=origin.where)
    try:
        node: Node = read_value(value, origin)
    except ConfigError as error:
        hint = f"put quotes around the value: '{key}=\"{value}\"'"
        raise ConfigError(f"{key}: {error.what}", where=origin.where, hint=hint) from error
    for name in reversed(names):
        node = Section({name: node}, origin)
    assert isinstance(node, Section)
    return node


def preset_layer(cls: type, tree: Tree) -> Tree | None:
    """The preset that a tree asks for by ``preset: name``, from ``cls.presets``.

    Raises:
        ConfigError: The class has no such preset.
    """
    node = tree.items.get("preset")
    name = None if node is None else plain(node)
    if node is None or name is None:
        return None
    presets: Mapping[str, Mapping[str, Any]] = getattr(cls, "presets", {})
    if name not in presets:
        hint = did_you_mean(str(name), presets) or f"{cls.__name__} has no presets"
        raise ConfigError(f"unknown preset {name!r}", where=node.origin.where, hint=hint)
    layer = tree_of(presets[name], Origin("preset", f"preset {name}"))
    assert isinstance(layer, Section)
    return layer


def word_of(tree: Tree, key: str) -> str:
    """A top-level word, such as the job's name; empty when there is none."""
    node = tree.items.get(key)
    return node.value if isinstance(node, Leaf) and isinstance(node.value, str) else ""
