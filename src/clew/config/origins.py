"""Where each value of a loaded config came from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from clew.config.tree import Origin, Shadow, leaves, tree_of


@dataclass(frozen=True)
class Resolved:
    """The value of a leaf, where it was said, and what it won over (the nearest layer first)."""

    value: Any
    origin: Origin
    shadowed: tuple[Shadow, ...] = ()


@dataclass(frozen=True)
class Origins(Mapping[str, Resolved]):
    """Dotted key to where its value came from, in the order of the schema."""

    entries: Mapping[str, Resolved]

    def __getitem__(self, key: str) -> Resolved:
        return self.entries[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def below(self, key: str) -> dict[str, Resolved]:
        """The leaf at a key, or all leaves of the section at it."""
        return {name: entry for name, entry in self.items() if name == key or name.startswith(f"{key}.")}

    def plain(self) -> dict[str, Any]:
        """As JSON holds it: ``{key: {value, layer, where, shadowed: [{value, layer, where}]}}``."""
        return {
            key: {**_plain(entry.value, entry.origin), "shadowed": [_plain(*shadow) for shadow in entry.shadowed]}
            for key, entry in self.items()
        }


def _plain(value: Any, origin: Origin) -> dict[str, Any]:
    return {"value": value, "layer": origin.layer, "where": origin.where}


def diff(left: Mapping[str, Any], right: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Dotted keys whose values differ between two plain configs; a missing one is ``None``."""
    nowhere = Origin("", "")
    before = {key: leaf.value for key, leaf in leaves(tree_of(left, nowhere))}
    after = {key: leaf.value for key, leaf in leaves(tree_of(right, nowhere))}
    keys = dict.fromkeys((*before, *after))
    return {key: (before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)}
