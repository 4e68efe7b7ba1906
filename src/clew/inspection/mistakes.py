"""Where in a recipe somebody went wrong."""

from __future__ import annotations

from clew.errors import UserError


def mistake(what: str, place: int, hint: str = "") -> UserError:
    """Return an error that names a place in a text of one line.

    Args:
        what: What is wrong.
        place: Characters before it.
        hint: What to write instead.
    """
    return UserError(what, where=f"recipe, character {place + 1}", hint=hint)
