"""Errors that people read: what is wrong, where, and what to do about it.

Everything that Clew raises for a person derives from :class:`ClewError`. The command line prints it in one or two
lines and maps it to an exit code; a traceback is shown only with ``--debug``.
"""

from __future__ import annotations

import difflib
import importlib
import re
from collections.abc import Iterable
from types import ModuleType


class ClewError(Exception):
    """An error with an audience.

    Args:
        what: One sentence that says what is wrong.
        where: The place, for instance ``sft.yaml:12`` or a run's id; empty when there is none.
        hint: What the reader can do now; empty when nothing can be advised.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}\n  {self.hint}" if self.hint else text

    def one_line(self) -> str:
        """Return the same on one line, for tables and journals."""
        return f"{self.where}: {self.what}".removeprefix(": ") + (f" ({self.hint})" if self.hint else "")

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.what, self.where, self.hint))


def _rebuild(kind: type[ClewError], what: str, where: str, hint: str) -> ClewError:
    return kind(what, where=where, hint=hint)


class UserError(ClewError):
    """The request cannot be carried out as it was made: exit code 2."""

    exit_code = 2


class ConfigError(UserError):
    """A config that cannot be loaded: unknown key, wrong type, broken rule."""


class DataError(UserError):
    """A data file or row that cannot be used; ``where`` holds ``file:line``."""


class MissingLibrary(UserError):
    """An optional library is not installed."""


class RunFailed(ClewError):
    """A run that did not complete: exit code 1."""


class NotFinite(RunFailed):
    """The loss or a gradient of a training is no longer a finite number."""


_FOR_PEOPLE = frozenset(
    {
        *("ClewError", "UserError", "ConfigError", "ConfigErrors", "DataError", "MissingLibrary", "MissingPart"),
        *(
            "MissingSplit",
            "RunExists",
            "DamagedRun",
            "Refused",
            "LaterState",
            "IllegalMove",
            "Fenced",
            "RunFailed",
            "NotFinite",
        ),
        *("RemoteError", "DamagedCopy", "Conflict", "StoreError", "StoreMissing", "StoreDamaged", "StoreLocked"),
    }
)
"""Names of the errors of this package: journals and results keep the name of what was raised, not its class."""


def is_for_people(kind: str) -> bool:
    """Say whether an exception of this name is one of this package, whose text says everything."""
    return kind in _FOR_PEOPLE


def cause(kind: str, reason: str) -> str:
    """Say why something ended, from what a journal or a result keeps of it.

    Args:
        kind: The name of an exception, or a word such as ``killed``.
        reason: What it said. One of this package is written for people, and of a word it says everything: both stand
            alone. Of any other exception the name says what the text does not.
    """
    if is_for_people(kind) or not kind[:1].isupper():
        return reason
    return f"{kind}: {reason}".removesuffix(": ")


def require(module: str, *, extra: str) -> ModuleType:
    """Import an optional library.

    Args:
        module: The module's import name, such as ``"trl"``.
        extra: The extra of this package that installs it.

    Raises:
        MissingLibrary: With the one command that brings it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise
        raise MissingLibrary(f"the library {module!r} is not installed", hint=f"pip install 'clew[{extra}]'") from None


def missing_library(error: BaseException) -> MissingLibrary | None:
    """Return what people read of an import that failed for want of an optional library; None for any other error.

    Which extra brings it, this package's own metadata say.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ModuleNotFoundError) and (extra := _extra_of((cause.name or "").partition(".")[0])):
            name = (cause.name or "").partition(".")[0]
            return MissingLibrary(f"the library {name!r} is not installed", hint=f"pip install 'clew[{extra}]'")
        cause = cause.__cause__ or cause.__context__
    return None


def _extra_of(module: str) -> str:
    """The first extra that asks for a library; empty when none does, or when this package is not installed itself."""
    from importlib import metadata

    try:
        wanted = metadata.requires("clew") or []
    except metadata.PackageNotFoundError:
        return ""
    for line in wanted:
        match = re.match(r"([A-Za-z0-9._-]+).*extra == [\"']([^\"']+)", line)
        if match and match[1].replace("-", "_").lower() == module.lower():
            return match[2]
    return ""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``did you mean 'x'?`` or a list of what is known; empty when nothing is known."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known: {', '.join(names)}" if names else ""
