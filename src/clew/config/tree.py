"""Config trees before they are typed: plain values that know where they come from.

A tree is immutable. Mappings are :class:`Section`; a list of plain values is one :class:`Leaf`; a list that holds
mappings is :class:`Items`, so that each value in it keeps its own place. Dotted keys address both: ``mix.0.weight``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from clew.errors import ConfigError, did_you_mean


@dataclass(frozen=True)
class Origin:
    """Where a value was said.

    Args:
        layer: ``default``, ``from``, ``preset``, ``file``, ``environment``, ``sweep`` or ``command line``.
        where: The place for people: ``sft.yaml:12``, ``command line``, a preset's name, a class.
        base: The folder that relative paths in this place are relative to; nothing means the current one.
    """

    layer: str
    where: str
    base: Path | None = None


Shadow = tuple[Any, Origin]


@dataclass(frozen=True)
class Leaf:
    """A value, where it was said, and what it won over (the nearest layer first)."""

    value: Any
    origin: Origin
    shadowed: tuple[Shadow, ...] = ()


@dataclass(frozen=True)
class Section:
    """A mapping."""

    items: Mapping[str, Node]
    origin: Origin


@dataclass(frozen=True)
class Items:
    """A list whose items know their places one by one."""

    items: tuple[Node, ...]
    origin: Origin
    shadowed: tuple[Shadow, ...] = field(default=())


Node = Leaf | Section | Items
Tree = Section
Replace = Callable[[Any, str, Origin], Any]


def tree_of(value: Any, origin: Origin) -> Node:
    """Make a tree of a plain value that was said in one place."""
    if isinstance(value, Mapping):
        return Section({str(key): tree_of(item, origin) for key, item in value.items()}, origin)
    if isinstance(value, list | tuple):
        return items_of(tuple(tree_of(item, origin) for item in value), origin)
    return Leaf(value, origin)


def items_of(nodes: tuple[Node, ...], origin: Origin) -> Node:
    """A list: one leaf when it holds plain values only."""
    if all(isinstance(node, Leaf) for node in nodes):
        return Leaf([plain(node) for node in nodes], origin)
    return Items(nodes, origin)


def plain(node: Node) -> Any:
    """The values alone."""
    if isinstance(node, Section):
        return {key: plain(item) for key, item in node.items.items()}
    if isinstance(node, Items):
        return [plain(item) for item in node.items]
    return node.value


def leaves(node: Node, key: str = "") -> Iterator[tuple[str, Leaf]]:
    """All leaves with their dotted keys, in the order in which they are written."""
    if isinstance(node, Leaf):
        yield key, node
        return
    for name, item in children(node):
        yield from leaves(item, join(key, name))


def children(node: Section | Items) -> list[tuple[str, Node]]:
    """Names (or indices as text) and nodes, one level down."""
    if isinstance(node, Section):
        return list(node.items.items())
    return [(str(index), item) for index, item in enumerate(node.items)]


def join(prefix: str, name: str) -> str:
    """Extend a dotted key."""
    return f"{prefix}.{name}" if prefix and name else prefix or name


def find(node: Node, key: str) -> Node | None:
    """The node at a dotted key; nothing when there is none."""
    for name in key.split(".") if key else ():
        known = {} if isinstance(node, Leaf) else dict(children(node))
        if name not in known:
            return None
        node = known[name]
    return node


def subtree(tree: Tree, key: str) -> Tree:
    """Cut out a section with the origins of its leaves.

    Raises:
        ConfigError: There is no such key, or it holds a value instead of a section.
    """
    node: Node = tree
    path = ""
    for name in key.split("."):
        known = {} if isinstance(node, Leaf) else dict(children(node))
        if name not in known:
            raise ConfigError(
                f"there is no {join(path, name)!r}", where=node.origin.where, hint=did_you_mean(name, known)
            )
        path, node = join(path, name), known[name]
    if not isinstance(node, Section):
        raise ConfigError(f"{key!r} must be a section, not {plain(node)!r}", where=node.origin.where)
    return node


def without(tree: Tree, names: tuple[str, ...]) -> Tree:
    """The tree without some of its top-level keys."""
    return replace(tree, items={key: node for key, node in tree.items.items() if key not in names})


def replace_leaves(tree: Tree, fn: Replace) -> Tree:
    """Put another value in the place of each scalar, also of those inside plain lists.

    Args:
        tree: Stays as it is.
        fn: Gets a scalar, its dotted key and its origin; returns what stands there now. A mapping or a list becomes
            a part of the tree. Origins and shadowed values are kept.
    """
    made = _replaced(tree, "", fn)
    assert isinstance(made, Section)
    return made


def _replaced(node: Node, key: str, fn: Replace) -> Node:
    if isinstance(node, Section):
        return replace(node, items={name: _replaced(item, join(key, name), fn) for name, item in node.items.items()})
    if isinstance(node, Items):
        return replace(node, items=tuple(_replaced(item, join(key, name), fn) for name, item in children(node)))
    made = tree_of(_replaced_value(node.value, key, node.origin, fn), node.origin)
    return made if isinstance(made, Section) else replace(made, shadowed=node.shadowed)


def _replaced_value(value: Any, key: str, origin: Origin, fn: Replace) -> Any:
    if isinstance(value, list):
        return [_replaced_value(item, join(key, str(index)), origin, fn) for index, item in enumerate(value)]
    return fn(value, key, origin)
