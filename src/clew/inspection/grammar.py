"""Reads recipes; what they look like is said in :mod:`clew.inspection.recipes`."""

from __future__ import annotations

import json
import math
import re
from decimal import Decimal
from pathlib import Path
from typing import Literal

from clew.errors import UserError, did_you_mean
from clew.inspection.expression import read_expression
from clew.inspection.mistakes import mistake
from clew.inspection.recipes import Choice, Cluster, Everything, Extreme, Named, Region, Term, Where

MAX_LENGTH = 100_000
"""Of a recipe; lists of ids may be long."""
MAX_PARTS = 100
_WORDS = ("all", "hardest", "easiest", "region", "cluster", "where", "ids")
# A point that is followed by another one is no decimal point: 0.5..2 are two numbers.
_NUMBER = re.compile(r"-?(?:\d+(?:\.(?!\.)\d*)?|\.\d+)(?:[eE][+-]?\d+)?")
_WHOLE = re.compile(r"\d{1,18}(?![\d.])")
_WORD = re.compile(r"[A-Za-z]+")
_PATH = re.compile(r"[^\s\"']+")
_EXAMPLES = "such as: hardest 15%; region 0.5..2; cluster 2/8; where 'length > 200'; 0.7 hardest 15% + 0.3 all"


def read_terms(text: str) -> tuple[Term, ...]:
    """Read the parts of a recipe.

    Raises:
        UserError: If it is none, with the place in the text.
    """
    if len(text) > MAX_LENGTH:
        raise UserError(f"a recipe has at most {MAX_LENGTH} characters", hint="put long lists of ids into a file")
    reader = _Reader(text)
    found = [reader.term()]
    while reader.takes("+"):
        found.append(reader.term())
    if reader.rest:
        raise reader.mistake(f"{_short(reader.rest)} is too much", "parts of a mixture stand between '+'")
    if len(found) > MAX_PARTS:
        raise UserError(f"a mixture has at most {MAX_PARTS} parts")
    weights = [weight for _, weight in found]
    if len(found) > 1 and any(weight is None for weight in weights) and any(weight is not None for weight in weights):
        raise UserError("some parts have a weight and others have none", hint="give one to each part, or to none")
    return tuple(Term(choice, 1.0 if weight is None or len(found) == 1 else weight) for choice, weight in found)


class _Reader:
    """A place in a text that moves on."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._place = 0

    @property
    def rest(self) -> str:
        """What has not been read yet, from its first character that is no blank."""
        self._place = len(self._text) - len(self._text[self._place :].lstrip())
        return self._text[self._place :]

    def takes(self, sign: str) -> bool:
        """Move over a sign, if it stands here."""
        found = self.rest.startswith(sign)
        self._place += len(sign) if found else 0
        return found

    def find(self, pattern: re.Pattern[str]) -> str:
        """Move over what stands here, if it fits; empty when it does not."""
        found = pattern.match(self.rest)
        self._place += len(found[0]) if found else 0
        return found[0] if found else ""

    def mistake(self, what: str, hint: str = "", *, back: int = 0) -> UserError:
        """Return an error that names this place, or one that lies some characters back."""
        return mistake(what, self._place - back, hint)

    def term(self) -> tuple[Choice, float | None]:
        """Read a part, with its weight or without."""
        number = self.find(_NUMBER)
        if not number:
            return self._choice(), None
        weight = float(number)
        if not 0 < weight < math.inf:
            raise self.mistake(f"a weight is a number above 0, not {number}", back=len(number))
        return self._choice(), weight

    def _choice(self) -> Choice:
        word = self.find(_WORD)
        match word:
            case "all":
                return Everything()
            case "hardest" | "easiest":
                return self._extreme(word)
            case "region":
                return self._region()
            case "cluster":
                return self._cluster()
            case "where":
                return self._where()
            case "ids":
                return self._named()
        if word:
            raise self.mistake(f"{word!r} is no choice; {did_you_mean(word, _WORDS)}", _EXAMPLES, back=len(word))
        raise self.mistake(f"a choice is missing{f' before {_short(self.rest)}' if self.rest else ''}", _EXAMPLES)

    def _extreme(self, word: str) -> Extreme:
        number = self.find(_NUMBER)
        hint = f"such as {word} 15%, or {word} 200"
        if not number:
            raise self.mistake(f"{word} takes a count or a percentage{self._instead()}", hint)
        if self.takes("%"):
            percent = Decimal(number)
            if not 0 < percent <= 100:
                raise self.mistake(f"a percentage is above 0 and up to 100, not {number}", hint, back=len(number) + 1)
            return Extreme(word == "hardest", percent=percent)
        if not _WHOLE.fullmatch(number) or int(number) == 0:
            raise self.mistake(f"a count is a whole number from 1, not {number}", hint, back=len(number))
        return Extreme(word == "hardest", count=int(number))

    def _region(self) -> Region:
        hint = "such as region 0.5..2, region 0.5.. or region ..2"
        low = self.find(_NUMBER)
        if not self.takes(".."):
            raise self.mistake(f"region takes two bounds with '..' between them{self._instead()}", hint)
        high = self.find(_NUMBER)
        if not (low or high):
            raise self.mistake("region takes at least one bound", hint)
        region = Region(float(low) if low else -math.inf, float(high) if high else math.inf)
        if region.low > region.high:
            raise self.mistake(f"nothing lies between {low} and {high}", "the lower bound stands first")
        return region

    def _cluster(self) -> Cluster:
        hint = "such as cluster 2/8, or cluster 1/4 by loss"
        number = self.find(_WHOLE)
        if not (number and self.takes("/") and (of := self.find(_WHOLE))):
            raise self.mistake(f"cluster takes two whole numbers with '/' between them{self._instead()}", hint)
        if not 1 <= int(number) <= int(of) or not 2 <= int(of) <= 1000:
            raise self.mistake(f"there is no cluster {number} of {of}; they count from 1, and are 2 to 1000", hint)
        by: Literal["embedding", "loss", "margin"] = "embedding"
        if self.find(re.compile(r"by\b")):
            match self.find(_WORD):
                case "embedding" | "loss" | "margin" as by:
                    pass
                case other:
                    raise self.mistake(
                        f"clusters are by embedding, loss or margin, not by {other or 'nothing'}", back=len(other)
                    )
        return Cluster(int(number), int(of), by)

    def _where(self) -> Where:
        """A condition in quotes ends with them; one without is all that follows."""
        text = self.rest
        # They are around it when nothing, or another part, follows: 'web' == source begins with quotes as well.
        found = re.match(r"([\"'])((?:(?!\1).)*)\1\s*(?=\+|$)", text, re.DOTALL)
        condition = read_expression(found[2] if found else text, self._place + (1 if found else 0))
        self._place += found.end() if found else len(text)
        return Where(condition)

    def _named(self) -> Named:
        if self.rest.startswith("["):
            return Named(ids=self._list())
        quoted = self.find(re.compile(r"\"[^\"]+\"|'[^']+'"))
        path = quoted[1:-1] if quoted else self.find(_PATH)
        if not path:
            raise self.mistake("ids takes a file, or a list", "such as ids hard.txt, or ids [3, 14, 15]")
        return Named(Path(path).expanduser().absolute())

    def _list(self) -> tuple[int, ...]:
        try:
            found, length = json.JSONDecoder().raw_decode(self.rest)
        except (ValueError, RecursionError):
            raise self.mistake("this is no list of numbers", "such as [3, 14, 15]") from None
        if not all(type(one) is int and one >= 0 for one in found):
            raise self.mistake("sample numbers are whole numbers from 0", "such as [3, 14, 15]")
        self._place += length
        return tuple(found)

    def _instead(self) -> str:
        return f", not {_short(self.rest)}" if self.rest else ""


def _short(text: str) -> str:
    return repr(text if len(text) <= 30 else f"{text[:27]}...")
