"""What the columns of a row hold: text, or a conversation; anything else is an error with the row's place."""

from __future__ import annotations

from typing import Any

from clew.errors import DataError, did_you_mean
from clew.tasks.base import Message
from clew.tasks.rows import Row, kind_of

ROLES = ("system", "user", "assistant", "tool")


def text_of(row: Row, column: str, place: str, option: str) -> str:
    """Return the text of a column; a number is text as well.

    Args:
        row: The row.
        column: The name of the column.
        place: Where the row is.
        option: The option that names the column, for the hint.

    Raises:
        DataError: If there is no such column, or it holds no text.
    """
    if column not in row:
        hint = did_you_mean(column, row)
        raise DataError(f"no column {column!r}", where=place, hint=f"{hint} ({option} sets it)" if hint else "")
    value = row[column]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise DataError(f"column {column!r} holds {kind_of(value)}, not text", where=place)
    if not value.strip():
        raise DataError(f"column {column!r} is empty", where=place)
    return value


def turns_of(value: Any, place: str) -> list[Message]:
    """Return a conversation without any further keys.

    Raises:
        DataError: If it is none, or has nothing before the answer.
    """
    if not isinstance(value, list) or not value:
        raise DataError("the messages are not a list of turns", where=place)
    turns: list[Message] = []
    for number, turn in enumerate(value, start=1):
        if not isinstance(turn, dict) or not {"role", "content"} <= turn.keys():
            raise DataError(f"turn {number} needs a role and a content", where=place)
        if turn["role"] not in ROLES:
            raise DataError(
                f"turn {number} has the unknown role {turn['role']!r}", where=place, hint=f"known: {', '.join(ROLES)}"
            )
        if not isinstance(turn["content"], str):
            raise DataError(f"turn {number}: the content is not text", where=place)
        turns.append(Message(role=turn["role"], content=turn["content"]))
    if len(turns) == 1 and turns[0]["role"] == "assistant":
        raise DataError("the conversation has no prompt", where=place)
    return turns
