"""How much is said and in which form; workers inherit it through their environment."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import NamedTuple

from clew.errors import UserError

LEVEL_VARIABLE = "CLEW_LOG"
FORMAT_VARIABLE = "CLEW_LOG_FORMAT"
LEVELS = {"quiet": logging.WARNING, "normal": logging.INFO, "verbose": logging.DEBUG}
FORMATS = ("text", "json")


class LogSettings(NamedTuple):
    """What is said, and how."""

    level: str = "normal"
    """``quiet``, ``normal`` or ``verbose``."""
    format: str = "text"
    """``text`` or ``json``."""

    @classmethod
    def choose(cls, level: str | None = None, form: str | None = None) -> LogSettings:
        """Return what was asked for; what was not is taken from the environment.

        Raises:
            UserError: If the environment says something else than what there is.
        """
        return cls(
            level or _variable(os.environ, LEVEL_VARIABLE, tuple(LEVELS)) or "normal",
            form or _variable(os.environ, FORMAT_VARIABLE, FORMATS) or "text",
        )

    def environment(self) -> dict[str, str]:
        """Return the variables that make another process talk in the same way."""
        return {LEVEL_VARIABLE: self.level, FORMAT_VARIABLE: self.format}


def _variable(environment: Mapping[str, str], name: str, known: tuple[str, ...]) -> str:
    value = environment.get(name, "")
    if value and value not in known:
        raise UserError(f"the environment variable {name} is {value!r}", hint=f"choose one of: {', '.join(known)}")
    return value
