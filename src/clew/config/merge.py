"""The merge of two layers, which itself yields what each leaf won over."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from clew.config.tree import Items, Leaf, Node, Section, Shadow, Tree, children, find, join, plain, tree_of
from clew.errors import ConfigError


def merge(low: Tree, high: Tree) -> Tree:
    """Lay one layer over another.

    Sections are merged key by key; anything else is replaced, and the new leaf remembers what it shadows. A section
    that names another ``type`` replaces the lower one as a whole, since the lower keys belong to another class. A
    section whose keys are all numbers changes single items of a lower list.

    Raises:
        ConfigError: An index is beyond the end of the list.
    """
    made = _merge(low, high, "")
    assert isinstance(made, Section)
    return made


def merge_all(layers: Iterable[Tree]) -> Tree:
    """Lay layers over each other, the lowest first; there is at least one."""
    first, *rest = layers
    for layer in rest:
        first = merge(first, layer)
    return first


def _merge(low: Node, high: Node, key: str) -> Node:
    if isinstance(high, Section):
        if isinstance(low, Section):
            return _merge_sections(low, high, key)
        listed = as_items(low)
        if listed is not None and is_index_section(high):
            return merge_items(listed, high, key)
        return high
    if isinstance(high, Items):
        return replace(high, shadowed=(*high.shadowed, *shadows(low)))
    return replace(high, shadowed=(*high.shadowed, *shadows(low)))


def _merge_sections(low: Section, high: Section, key: str) -> Section:
    base = dict(low.items)
    if _type_changes(low, high):
        base = {"type": base["type"]}
    for name, node in high.items.items():
        base[name] = _merge(base[name], node, join(key, name)) if name in base else node
    # A missing key is best looked for in the file that a person wrote, not in what was laid over or under it.
    keeps = high.origin.layer != "file" and low.origin.layer == "file"
    return Section(base, low.origin if keeps else high.origin)


def _type_changes(low: Section, high: Section) -> bool:
    before, after = find(low, "type"), find(high, "type")
    return isinstance(before, Leaf) and isinstance(after, Leaf) and before.value != after.value


def is_index_section(node: Section) -> bool:
    """Whether a section can speak about items of a list."""
    return bool(node.items) and all(name.isdecimal() for name in node.items)


def as_items(node: Node) -> Items | None:
    """A list with one node an item; nothing when the node is no list."""
    if isinstance(node, Items):
        return node
    if isinstance(node, Leaf) and isinstance(node.value, list):
        return Items(tuple(tree_of(item, node.origin) for item in node.value), node.origin, node.shadowed)
    return None


def merge_items(low: Items, high: Section, key: str) -> Items:
    """Change single items of a list.

    Raises:
        ConfigError: An index is beyond the end.
    """
    made = list(low.items)
    for name, node in children(high):
        index = int(name)
        if index >= len(made):
            raise ConfigError(
                f"{join(key, name)!r}: the list has {len(made)} items",
                where=node.origin.where,
                hint=f"write the whole list: {key}=[...]",
            )
        made[index] = _merge(made[index], node, join(key, name))
    return replace(low, items=tuple(made))


def shadows(node: Node) -> tuple[Shadow, ...]:
    """What something laid over the node would shadow, the nearest first."""
    below = () if isinstance(node, Section) else node.shadowed
    return ((plain(node), node.origin), *below)
