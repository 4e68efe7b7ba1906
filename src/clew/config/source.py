"""YAML and JSON files as trees in which every value knows its line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from clew.config.scalars import CoreLoader, read_scalar
from clew.config.tree import Leaf, Node, Origin, Section, Tree, items_of
from clew.errors import ConfigError


def read_file(path: Path, layer: str = "file") -> Tree:
    """Read a config file.

    Args:
        path: YAML, or JSON.
        layer: The layer that its values belong to.

    Raises:
        ConfigError: The file is missing, is not YAML, says a key twice, or is no mapping; with file and line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError("the file is not UTF-8 text", where=display(path)) from error
    except OSError as error:
        raise ConfigError(f"cannot read the file: {error.strerror}", where=display(path)) from error
    # YAML forbids tabs between tokens, JSON has them there only; a string of JSON holds none unescaped.
    text = text.replace("\t", " ") if path.suffix == ".json" else text
    return read_text(text, Origin(layer, display(path), path.resolve().parent))


def read_text(text: str, origin: Origin) -> Tree:
    """Read a mapping from text; ``origin.where`` is the name that stands before each line number.

    Raises:
        ConfigError: As :func:`read_file`.
    """
    node = _compose(text, origin)
    if node is None:
        return Section({}, origin)
    tree = _Reader(origin).node(node, origin)
    if isinstance(tree, Leaf) and tree.value is None:
        return Section({}, origin)
    if not isinstance(tree, Section):
        raise ConfigError("the file must hold `key: value` lines", where=origin.where)
    return tree


def read_value(text: str, origin: Origin) -> Node:
    """Read one value, as it stands on the command line; its place is ``origin`` itself.

    Raises:
        ConfigError: The text is not YAML.
    """
    node = _compose(text, origin)
    return Leaf(None, origin) if node is None else _Reader(origin, numbered=False).node(node, origin)


def display(path: Path) -> str:
    """A path as people know it: relative when it lies below the current folder."""
    full = path.absolute()
    return str(full.relative_to(Path.cwd())) if full.is_relative_to(Path.cwd()) else str(full)


def _compose(text: str, origin: Origin) -> yaml.Node | None:
    try:
        node: yaml.Node | None = yaml.compose(text, Loader=CoreLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{origin.where}:{mark.line + 1}" if mark and origin.layer != "command line" else origin.where
        raise ConfigError(f"not valid YAML: {error.problem or error.context}", where=where) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"not valid YAML: {' '.join(str(error).split())}", where=origin.where) from error
    return node


_COLLECTIONS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")
"""What a mapping or a list may be; any other tag asks for an object to be made."""


class _Reader:
    """Turns composed nodes into a tree; holds the name of the file."""

    def __init__(self, source: Origin, *, numbered: bool = True) -> None:
        self.source = source
        self.numbered = numbered
        self.open: list[yaml.Node] = []

    def place(self, node: yaml.Node) -> Origin:
        """The origin of what starts at a node."""
        if not self.numbered:
            return self.source
        return Origin(self.source.layer, f"{self.source.where}:{node.start_mark.line + 1}", self.source.base)

    def node(self, node: yaml.Node, origin: Origin) -> Node:
        """Turn one node into a tree; an alias to a node that is still open would never end."""
        if node in self.open:
            raise ConfigError("an anchor that contains itself", where=origin.where)
        self.open.append(node)
        try:
            return self._node(node, origin)
        finally:
            self.open.pop()

    def _node(self, node: yaml.Node, origin: Origin) -> Node:
        if isinstance(node, yaml.CollectionNode) and node.tag not in _COLLECTIONS:
            raise ConfigError(f"the tag {node.tag!r} is not allowed", where=origin.where)
        if isinstance(node, yaml.MappingNode):
            return Section(self._entries(node), origin)
        if isinstance(node, yaml.SequenceNode):
            return items_of(tuple(self.node(item, self.place(item)) for item in node.value), origin)
        return Leaf(self._scalar(node, origin), origin)

    def _entries(self, node: yaml.MappingNode) -> dict[str, Node]:
        entries: dict[str, Node] = {}
        for key_node, value_node in node.value:
            origin = self.place(key_node)
            if not isinstance(key_node, yaml.ScalarNode):
                raise ConfigError("a key must be a word, not a list or a mapping", where=origin.where)
            key = str(key_node.value)
            if key in entries:
                first = entries[key].origin.where
                raise ConfigError(f"the key {key!r} stands twice, first at {first}", where=origin.where)
            entries[key] = self.node(value_node, origin)
        return entries

    def _scalar(self, node: yaml.Node, origin: Origin) -> Any:
        try:
            return read_scalar(node.tag, node.value)
        except ValueError as error:
            raise ConfigError(str(error), where=origin.where) from error
