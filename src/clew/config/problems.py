"""Everything that is wrong with a config, told at once."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
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


class ConfigErrors(ConfigError):
    """Several problems, which stand on a line each.

    Args:
        what: All of them as text.
        where: As in :class:`clew.errors.ClewError`.
        hint: As there.
        found: The same, one by one.
    """

    def __init__(self, what: str, *, where: str = "", hint: str = "", found: Sequence[Problem] = ()) -> None:
        super().__init__(what, where=where, hint=hint)
        self.found = tuple(found)


@dataclass
class Problems:
    """Collects problems in the order in which they are found."""

    found: list[Problem] = field(default_factory=list)

    def add(self, what: str, where: str = "", hint: str = "") -> None:
        """Note a problem."""
        self.found.append(Problem(what, where, hint))

    def take(self, error: ConfigError) -> None:
        """Note what an error says; what is known already is left out."""
        several = error.found if isinstance(error, ConfigErrors) else ()
        told = several or (Problem(error.what, error.where, error.hint),)
        self.found += [problem for problem in told if problem not in self.found]

    @contextmanager
    def gathering(self) -> Iterator[None]:
        """Note the ConfigError that ends the block, and go on behind it."""
        try:
            yield
        except ConfigError as error:
            self.take(error)

    def raise_if_any(self, of: str = "the config", where: str = "") -> None:
        """Tell them all.

        Args:
            of: What has them.
            where: Its name; a single problem has a place of its own.

        Raises:
            ConfigError: There is a problem; several stand on a line each.
        """
        if len(self.found) == 1:
            only = self.found[0]
            raise ConfigError(only.what, where=only.where, hint=only.hint)
        if self.found:
            lines = "".join(f"\n  {problem}" for problem in self.found)
            raise ConfigErrors(f"{len(self.found)} problems in {of}:{lines}", where=where, found=self.found)


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
