"""``sweep:`` in a config: one config for each choice of values, named from what it changes."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePath
from typing import Any

from clew.config.layers import as_layer
from clew.config.merge import merge
from clew.config.problems import show
from clew.config.tree import Items, Leaf, Node, Section, Tree, find, join, leaves, plain, tree_of, without
from clew.errors import ConfigError, did_you_mean

FORMS = ("grid", "list")
_LONGEST_VALUE = 24
_LONGEST_NAME = 96

Choice = Mapping[str, Node]
"""Dotted key to the value that it takes in one of the runs."""


def swept(tree: Tree, more_keys: Iterable[str] = ()) -> dict[str, Tree]:
    """Expand the sweep of a config.

    Args:
        tree: A merged config with the section ``sweep``.
        more_keys: What else may stand in that section.

    Returns:
        For each choice its name, such as ``lr-0.001-seed-1``, and the config without ``sweep`` that it makes.

    Raises:
        ConfigError: If the section makes no sense, holds a choice twice, or speaks about what the command line sets.
    """
    sweep = tree.items["sweep"]
    choices = list(_choices(sweep, (*FORMS, *more_keys)))
    base = without(tree, ("sweep", "name"))
    for key, node in ((key, node) for choice in choices for key, node in choice.items()):
        _check_free(base, key, node)
    names = _names([dict(_values(choice)) for choice in choices], sweep)
    return {name: _laid_over(base, choice) for name, choice in zip(names, choices, strict=True)}


def _choices(sweep: Node, keys: tuple[str, ...]) -> Iterator[Choice]:
    where = sweep.origin.where
    if not isinstance(sweep, Section):
        raise ConfigError(f"'sweep' must be a section, not {show(plain(sweep))}", where=where, hint=_example())
    for key, node in sweep.items.items():
        if key not in keys:
            raise ConfigError(f"unknown key {f'sweep.{key}'!r}", where=node.origin.where, hint=did_you_mean(key, keys))
    forms = [form for form in FORMS if form in sweep.items]
    if len(forms) != 1:
        raise ConfigError("'sweep' needs either 'grid' or 'list'", where=where, hint=_example())
    node = sweep.items[forms[0]]
    yield from _grid(node) if forms == ["grid"] else _list(node)


def _example() -> str:
    return "such as grid: {training.lr: [1e-3, 1e-4]}"


def _grid(node: Node) -> Iterator[Choice]:
    if not isinstance(node, Section) or not node.items:
        raise ConfigError("'sweep.grid' must say key: [values]", where=node.origin.where, hint=_example())
    axes: dict[str, Node] = {}
    for key, axis in _axes(node, ""):
        # `sweep.grid.training.lr=[...]` on the command line means the same as `training.lr: [...]` in the file.
        if key in axes and axis.origin.layer != "command line":
            first = axes[key].origin.where
            raise ConfigError(f"the key {key!r} stands twice, first at {first}", where=axis.origin.where)
        axes[key] = axis
    values = [_items(key, axis) for key, axis in axes.items()]
    for combination in itertools.product(*values):
        yield dict(zip(axes, combination, strict=True))


def _axes(node: Node, key: str) -> Iterator[tuple[str, Node]]:
    if isinstance(node, Section) and node.items:
        for name, item in node.items.items():
            yield from _axes(item, join(key, name))
    else:
        yield key, node


def _items(key: str, axis: Node) -> list[Node]:
    if isinstance(axis, Items):
        return list(axis.items)
    if isinstance(axis, Leaf) and isinstance(axis.value, list) and axis.value:
        return [tree_of(value, axis.origin) for value in axis.value]
    what = f"{f'sweep.grid.{key}'!r} must be a list of values, not {show(plain(axis))}"
    raise ConfigError(what, where=axis.origin.where)


def _list(node: Node) -> Iterator[Choice]:
    if not isinstance(node, Items):
        what = f"'sweep.list' must be a list of `key: value` mappings, not {show(plain(node))}"
        raise ConfigError(what, where=node.origin.where, hint="such as list: [{seed: 1, training.lr: 1e-3}]")
    for item in node.items:
        if not isinstance(item, Section) or not item.items:
            what = f"an item of 'sweep.list' must be a `key: value` mapping, not {show(plain(item))}"
            raise ConfigError(what, where=item.origin.where)
        yield item.items


def _check_free(base: Tree, key: str, node: Node) -> None:
    """What the command line sets cannot be swept: one of the two would be dropped in silence."""
    there = find(base, key)
    for _, leaf in leaves(there) if there is not None else ():
        if leaf.origin.layer == "command line":
            hint = "leave that out, or say there what to sweep, such as sweep.grid.KEY=[...]"
            raise ConfigError(f"{key!r} is swept, and the command line sets it", where=node.origin.where, hint=hint)


def _laid_over(base: Tree, choice: Choice) -> Tree:
    made = base
    for key, node in choice.items():
        layer = as_layer(node, "sweep")
        for name in reversed(key.split(".")):
            layer = Section({name: layer}, layer.origin)
        assert isinstance(layer, Section)
        made = merge(made, layer)
    return made


def _values(choice: Choice) -> Iterator[tuple[str, Any]]:
    for key, node in choice.items():
        if isinstance(node, Section):
            for name, leaf in leaves(node):
                yield join(key, name), leaf.value
        else:
            yield key, plain(node)


def _names(choices: list[dict[str, Any]], sweep: Node) -> list[str]:
    keys = dict.fromkeys(key for choice in choices for key in choice)
    last = Counter(key.rpartition(".")[2] for key in keys)
    short = {key: name if last[name := key.rpartition(".")[2]] == 1 else key.replace(".", "-") for key in keys}
    names: list[str] = []
    for index, choice in enumerate(choices):
        if choice in choices[:index]:
            raise ConfigError(f"the sweep holds a choice twice: {show(choice)}", where=sweep.origin.where)
        name = "-".join(f"{short[key]}-{_word(value)}" for key, value in choice.items())[:_LONGEST_NAME].rstrip("-.")
        names.append(name if name not in names else f"{name}-{index + 1}")
    return names


def _word(value: Any) -> str:
    """A value as a part of a name."""
    if isinstance(value, float):
        return f"{value:g}"
    text = PurePath(value).name if isinstance(value, str) else json.dumps(value)
    return re.sub(r"[^A-Za-z0-9._]+", "-", text)[:_LONGEST_VALUE].strip("-.") or "empty"
