"""Recipes: which samples to train on, in words such as ``0.7 hardest 15% + 0.3 all``.

::

    recipe  = part { "+" part }                      a mixture: each part draws its share of the samples
    part    = [weight] choice                        every part has a weight, or none has one: then all count the same
    choice  = "all"                                  everything
            | ("hardest" | "easiest") amount         by loss; the amount is a count or a percentage
            | "region" [low] ".." [high]             a loss between two bounds, which belong to it
            | "cluster" k "/" n ["by" what]          the k-th of n clusters, counted from the lowest mean loss;
                                                     what: embedding (the default), loss or margin
            | "where" condition                      see clew.inspection.expression; in quotes if another part follows
            | "ids" (file | "[" id, ... "]")         a file with a number a line, or a JSON list

Reading a recipe needs neither numpy nor a model.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from clew.errors import UserError, did_you_mean
from clew.inspection.expression import Expression

if TYPE_CHECKING:
    from clew.inspection.samples import Scorer, Selection

Need = Literal["loss", "margin", "embedding", "fields", "size"]
ORDERS = ("shuffled", "given", "easy-first", "hard-first")
"""The orders in which a selection can come: mixed anew in each epoch; as the data has it (a file of ids: as the file
has it); by rising loss; by falling loss."""


@dataclass(frozen=True)
class Everything:
    """All samples."""

    needs: frozenset[Need] = frozenset({"size"})

    def __str__(self) -> str:
        return "all"


@dataclass(frozen=True)
class Extreme:
    """The samples of the highest loss, or of the lowest: so many, or so many of a hundred that have one."""

    hardest: bool
    count: int | None = None
    percent: Decimal | None = None
    needs: frozenset[Need] = frozenset({"loss"})

    def __str__(self) -> str:
        amount = f"{self.count}" if self.percent is None else f"{self.percent}%"
        return f"{'hardest' if self.hardest else 'easiest'} {amount}"


@dataclass(frozen=True)
class Region:
    """The samples whose loss lies between two bounds, which belong to it."""

    low: float
    high: float
    needs: frozenset[Need] = frozenset({"loss"})

    def __str__(self) -> str:
        return f"region {_bound(self.low)}..{_bound(self.high)}"


@dataclass(frozen=True)
class Cluster:
    """One of several clusters, counted from 1 by rising mean loss."""

    number: int
    of: int
    by: Literal["embedding", "loss", "margin"] = "embedding"

    @property
    def needs(self) -> frozenset[Need]:
        """What the clusters are made of, and the loss, which orders them."""
        return frozenset({"loss", self.by})

    def __str__(self) -> str:
        return f"cluster {self.number}/{self.of} by {self.by}"


@dataclass(frozen=True)
class Where:
    """The samples of which a condition is true."""

    condition: Expression

    @property
    def needs(self) -> frozenset[Need]:
        """The fields, and those scores that the condition names."""
        scores: tuple[Need, ...] = ("loss", "margin")
        return frozenset({"fields", *(name for name in scores if name in self.condition.names)})

    def __str__(self) -> str:
        # What was in quotes of one kind holds none of that kind; what was in none stands at the end.
        quote = next((quote for quote in "\"'" if quote not in self.condition.text), "")
        return f"where {quote}{self.condition.text}{quote}"


@dataclass(frozen=True)
class Named:
    """The samples of a list: in a file, or as it stands."""

    file: Path | None = None
    ids: tuple[int, ...] = ()
    needs: frozenset[Need] = frozenset()

    def __str__(self) -> str:
        if self.file is None:
            return f"ids {list(self.ids)}"
        quote = "'" if '"' in str(self.file) else '"'
        return f"ids {quote}{self.file}{quote}"


Choice = Everything | Extreme | Region | Cluster | Where | Named


@dataclass(frozen=True)
class Term:
    """A choice and its weight in a mixture."""

    choice: Choice
    weight: float = 1.0


@dataclass(frozen=True)
class Recipe:
    """Which samples to train on. As a text it is what :func:`parse` reads, with files by their whole paths.

    Attributes:
        terms: At least one.
        order: One of :data:`ORDERS`.
    """

    terms: tuple[Term, ...]
    order: str = ORDERS[0]

    def __str__(self) -> str:
        if all(term.weight == 1 for term in self.terms):
            return " + ".join(str(term.choice) for term in self.terms)
        return " + ".join(f"{term.weight!r} {term.choice}" for term in self.terms)

    @property
    def is_everything(self) -> bool:
        """Whether it takes a selection back: all of the data, in the order that it has without one."""
        return self.order == ORDERS[0] and len(self.terms) == 1 and isinstance(self.terms[0].choice, Everything)

    @property
    def needs(self) -> frozenset[Need]:
        """What has to be known of the samples."""
        ordered: frozenset[Need] = frozenset({"loss"} if self.order.endswith("-first") else ())
        return ordered.union(*(term.choice.needs for term in self.terms))

    def select(
        self,
        scorer: Scorer | None,
        *,
        seed: int = 0,
        progress: Callable[[int, int, str], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Selection:
        """Choose the samples. The same scores give the same selection.

        Args:
            scorer: Looks at the samples; None will do when :attr:`needs` is empty.
            seed: Of the clusters.
            progress: Is told ``(done, total, what)`` after each batch of samples.
            cancelled: Says whether to give up.

        Returns:
            The selection: each part of it by number, or as its file has it, or by loss.

        Raises:
            UserError: If a part chooses nothing, something is asked for that the samples do not have, or it was
                cancelled.
        """
        from clew.inspection.choosing import choose  # needs numpy

        return choose(self, scorer, seed=seed, progress=progress, cancelled=cancelled)


def parse(text: str, order: str = ORDERS[0]) -> Recipe:
    """Read a recipe. Files are not opened yet; their paths are taken from the current folder.

    Args:
        text: Such as ``hardest 15%``.
        order: One of :data:`ORDERS`.

    Returns:
        The recipe. ``str`` of it can be sent to a process with another current folder.

    Raises:
        UserError: If it is none, with the place in the text.
    """
    from clew.inspection.grammar import read_terms

    if order not in ORDERS:
        raise UserError(f"there is no order {order!r}", hint=did_you_mean(order, ORDERS))
    return Recipe(read_terms(text), order)


def request(text: str, order: str = "") -> dict[str, str]:
    """Return the arguments of the command ``select``. What is nonsense anywhere is told before it is sent.

    Args:
        text: The recipe; files that it names are written out, since who reads them is elsewhere.
        order: One of :data:`ORDERS`; empty leaves it out.

    Raises:
        UserError: If it is no recipe, or no order.
    """
    recipe = parse(text, order or ORDERS[0])
    return {"recipe": str(recipe), **({"order": order} if order else {})}


def _bound(value: float) -> str:
    return "" if value in (float("inf"), float("-inf")) else json.dumps(value)
