"""The keys that ask something of a run: what is typed for each, and the arguments that it makes."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clew.errors import UserError

Args = Mapping[str, Any]


@dataclass(frozen=True)
class Question:
    """Something to type.

    Attributes:
        label: What is asked for.
        example: What stands there while nothing is typed.
        initial: What stands there at first.
    """

    label: str
    example: str = ""
    initial: str = ""


def _nothing(texts: Sequence[str]) -> Args:
    return {}


@dataclass(frozen=True)
class Key:
    """A key that sends a command.

    Attributes:
        key: Which.
        verb: The command.
        meaning: What it does.
        questions: What has to be typed before.
        args: Makes the command's arguments of what was typed; raises UserError where that makes no sense.
        consequence: What comes of it, for a command that is sent only after a yes; empty for others.
    """

    key: str
    verb: str
    meaning: str
    questions: Sequence[Question] = ()
    args: Callable[[Sequence[str]], Args] = _nothing
    consequence: str = ""


def pairs(text: str) -> dict[str, str]:
    """Return ``key=value ...`` as a mapping.

    Raises:
        UserError: If it is something else.
    """
    return dict(_pair(word) for word in words(text))


def words(text: str) -> list[str]:
    """Return the words of a text, as a shell would cut it.

    Raises:
        UserError: If a quotation mark has no other.
    """
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UserError(f"{text!r} cannot be read: {error}") from None


def _pair(word: str) -> tuple[str, str]:
    name, equals, value = word.partition("=")
    if not (name and equals and value):
        raise UserError(f"{word!r} is not key=value", hint="write for instance lr=1e-4")
    return name, value


def _steps(texts: Sequence[str]) -> Args:
    try:
        return {"steps": int(texts[0])}
    except ValueError:
        raise UserError(f"{texts[0]!r} is no number of steps") from None


def _tag(texts: Sequence[str]) -> Args:
    return {"tag": texts[0]} if texts[0] else {}


def _child(texts: Sequence[str]) -> Args:
    name, values = texts
    return {"name": name, "overrides": [f"{key}={value}" for key, value in pairs(values).items()]}


FORK = "fork"
"""The one that is no command of the run: whoever asks makes the child."""

KEYS = (
    Key("p", "pause", "save, and make no further step"),
    Key("r", "resume", "let a paused run go on"),
    Key("s", "step", "make some steps, and pause again", [Question("how many steps", initial="1")], _steps),
    Key(
        "c",
        "checkpoint",
        "save now; with a name it is kept for good",
        [Question("a name, to keep it for good, or none", "calm")],
        _tag,
    ),
    Key(
        "f",
        FORK,
        "fork: a run that goes on from here with other values",
        [Question("the name of the child, or none"), Question("key=value ..., or none", "training.lr=1e-4")],
        _child,
    ),
    Key(
        "e",
        "set",
        "change numbers of the trainer",
        [Question("key=value ...", "lr=1e-4")],
        lambda texts: pairs(texts[0]),
    ),
    Key("x", "stop", "save and end", consequence="it saves at its next step and ends; clew resume goes on from there"),
    Key("v", "evaluate", "evaluate now"),
    Key(
        "n",
        "note",
        "write something into the journal",
        [Question("what to write into the journal")],
        lambda texts: {"text": texts[0]},
    ),
)
