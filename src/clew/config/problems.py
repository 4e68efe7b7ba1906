"""Everything that is wrong with a config, told at once."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from clew.errors import ConfigError

_LONGEST_VALUE = 60


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong; the words mean what they mean in :class:`clew.errors.ClewError`."""

    what: str
    where: str = ""
    hint: str = ""

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}; {self.hint}" if self.hint else text


@dataclass
class Problems:
    """Collects problems in the order in which they are found."""

    found: list[Problem] = field(default_factory=list)

    def add(self, what: str, where: str = "", hint: str = "") -> None:
        """Note a problem."""
        self.found.append(Problem(what, where, hint))

    def raise_if_any(self) -> None:
        """Tell them all.

        Raises:
            ConfigError: There is a problem; several stand on a line each.
        """
        if len(self.found) == 1:
            only = self.found[0]
            raise ConfigError(only.what, where=only.where, hint=only.hint)
        if self.found:
            lines = "".join(f"\n  {problem}" for problem in self.found)
            raise ConfigError(f"{len(self.found)} problems in the config:{lines}")


def show(value: Any) -> str:
    """A value as an error shows it: short, in the words of YAML."""
    text = repr(value) if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 3]}..."


def suggest_key(key: str, siblings: Iterable[str], known: Iterable[str]) -> str:
    """Guess which key was meant: a neighbour with nearly this name, or this name in another place.

    Args:
        key: The full dotted key that is unknown.
        siblings: Full keys of the same section.
        known: Full keys of the whole schema.
    """
    near, everywhere = list(siblings), [other for other in known if other != key]
    name = _last(key)
    exact = [other for other in everywhere if _last(other) == name]
    if exact:
        return f"did you mean {_nearest(key, exact)!r}?"
    # Far away only a name that is nearly the same can be meant.
    for candidates, cutoff in ((near, 0.6), (everywhere, 0.8)):
        close = difflib.get_close_matches(name, {_last(other) for other in candidates}, n=1, cutoff=cutoff)
        if close:
            return f"did you mean {_nearest(key, [other for other in candidates if _last(other) == close[0]])!r}?"
    return f"known: {', '.join(sorted(near))}" if near else ""


def _last(key: str) -> str:
    return key.rpartition(".")[2]


def _nearest(key: str, candidates: list[str]) -> str:
    return max(sorted(candidates), key=lambda other: difflib.SequenceMatcher(None, key, other).ratio())
