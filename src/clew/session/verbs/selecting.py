"""Select: train on some of the samples from the next batch on.

What is chosen is stored with the run before it holds, and is never chosen anew: whoever repeats the command takes the
stored numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from clew.errors import UserError
from clew.inspection.recipes import ORDERS, Recipe, parse
from clew.session.surface import Scorable, Selectable, capable
from clew.session.verbs.base import Boundary, Verb

if TYPE_CHECKING:
    from clew.inspection.samples import Selection
    from clew.inspection.stored import Stored

SPLIT = "train"
"""The split whose samples are trained on."""


def _select(boundary: Boundary, args: Mapping[str, Any]) -> Mapping[str, Any]:
    from clew.inspection.stored import load, store  # needs numpy

    surface = capable(boundary.surface, Selectable)
    if "stored" in args:  # with its recipe and its order
        stored = load(boundary.folder, args["stored"])
    else:
        stored = store(boundary.folder, _chosen(boundary, _recipe(args)))
    _apply(surface, stored)
    return _told(stored)


def _recipe(args: Mapping[str, Any]) -> Recipe:
    text, order = args.get("recipe"), args.get("order", ORDERS[0])
    if not isinstance(text, str) or not isinstance(order, str):
        raise UserError("a selection needs a recipe, as a text", hint="such as hardest 15%")
    return parse(text, order)


def _chosen(boundary: Boundary, recipe: Recipe) -> Selection | None:
    """Carry a recipe out; samples are looked at only where it has to know something of them."""
    if recipe.is_everything:
        return None
    scorer = capable(boundary.surface, Scorable).scorer(SPLIT) if recipe.needs else None
    return recipe.select(scorer, progress=boundary.progress, cancelled=boundary.is_wanted_elsewhere)


def _apply(surface: Selectable, stored: Stored) -> None:
    try:
        surface.select(stored.selection)
    except ValueError as error:  # numbers that nobody could compare with the data before
        raise UserError(str(error)) from None


def _told(stored: Stored) -> dict[str, Any]:
    chosen = stored.selection
    return {
        "stored": stored.name,
        "sha256": stored.sha256,
        "count": chosen.size if chosen else None,
        "recipe": dict(chosen.recipe) if chosen else {"text": "all", "order": ORDERS[0]},
    }


def _again(boundary: Boundary, args: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    from clew.inspection.stored import load

    stored = load(boundary.folder, result["stored"], result["sha256"])
    _apply(capable(boundary.surface, Selectable), stored)


SELECT = Verb("select", _select, frozenset({"recipe", "order", "stored"}), again=_again)
