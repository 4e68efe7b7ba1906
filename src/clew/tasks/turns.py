"""Whether a chat template shows a model every turn of a conversation, each as a turn of its own.

Templates are programs. Some leave out the system message, some put two turns into one, some cut a part out of earlier
answers; a model then trains on, or answers to, something that nobody wrote.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clew.errors import DataError
from clew.tasks.base import Message

_HINT = "use another template, or prompts without such turns"


def render_turns(turns: Sequence[Message], tokenizer: Any, *, add_generation_prompt: bool = False) -> str:
    """Return a conversation as the tokenizer's chat template writes it.

    Raises:
        DataError: If the template refuses the conversation, or drops, merges, reorders or changes a turn.
    """
    _check_structure(turns, tokenizer)
    text = _apply(turns, tokenizer, add_generation_prompt)
    _check_contents(turns, text)
    return text


def _check_structure(turns: Sequence[Message], tokenizer: Any) -> None:
    """Look where the template puts each turn, by words that occur nowhere else in place of the contents."""
    marks = [f"Turn{number:03}Text" for number in range(1, len(turns) + 1)]
    marked = [Message(role=turn["role"], content=mark) for turn, mark in zip(turns, marks, strict=True)]
    text = _apply(marked, tokenizer, False)
    end = 0
    for number, (turn, mark) in enumerate(zip(turns, marks, strict=True), start=1):
        name = f"turn {number} ({turn['role']})"
        if text.count(mark) != 1:
            what = "drops" if mark not in text else "repeats"
            raise DataError(f"the chat template {what} {name} of {_roles(turns)}", hint=_HINT)
        start = text.index(mark)
        if start < end:
            raise DataError(f"the chat template puts {name} before the turn that it follows", hint=_HINT)
        if number > 1 and not text[end:start].strip():
            raise DataError(
                f"the chat template merges {name} with the turn before it, of {_roles(turns)}",
                hint="merge them in the data, or use another template",
            )
        end = start + len(mark)


def _check_contents(turns: Sequence[Message], text: str) -> None:
    """Look whether what the turns say is there, in their order; white space around it may go."""
    end = 0
    for number, turn in enumerate(turns, start=1):
        content = turn["content"].strip()
        start = text.find(content, end)
        if start < 0:
            raise DataError(
                f"the chat template changes turn {number} ({turn['role']}): not all of its text is in what it writes",
                hint="look at the template; some cut reasoning or tags out of earlier answers",
            )
        end = start + len(content)


def _apply(turns: Sequence[Message], tokenizer: Any, add_generation_prompt: bool) -> str:
    from jinja2 import TemplateError

    try:
        text: str = tokenizer.apply_chat_template(
            list(turns), tokenize=False, add_generation_prompt=add_generation_prompt
        )
    except TemplateError as error:
        raise DataError(f"the chat template refuses {_roles(turns)}: {error}", hint=_HINT) from None
    return text


def _roles(turns: Sequence[Message]) -> str:
    return " + ".join(turn["role"] for turn in turns)
