"""The structured logger: a sentence and its fields, on top of Python's ``logging``.

Nothing is set up on import: a program that uses Clew as a library decides itself what becomes of the logger ``clew``.
"""

from __future__ import annotations

import logging
from typing import Any

ROOT = "clew"


class Logger:
    """Says things with fields.

    Args:
        name: Of the logger, below ``clew``, such as ``clew.session``.
        fields: Said with everything, such as ``run="sft-1"``.
    """

    def __init__(self, name: str = ROOT, **fields: Any) -> None:
        self._logger = logging.getLogger(name)
        self._fields = fields

    def debug(self, message: object, /, **fields: Any) -> None:
        """Say what only somebody wants to know who looks for a fault."""
        self._say(logging.DEBUG, message, fields)

    def info(self, message: object, /, **fields: Any) -> None:
        """Say what has happened."""
        self._say(logging.INFO, message, fields)

    def warning(self, message: object, /, **fields: Any) -> None:
        """Say what somebody should look at."""
        self._say(logging.WARNING, message, fields)

    def error(self, message: object, /, *, error: BaseException | None = None, **fields: Any) -> None:
        """Say what went wrong.

        Args:
            message: A text, or an error with an audience.
            error: Its traceback is told.
            fields: More.
        """
        self._say(logging.ERROR, message, fields, error)

    def _say(self, level: int, message: object, fields: dict[str, Any], error: BaseException | None = None) -> None:
        extra = {"fields": {**self._fields, **fields}}
        self._logger.log(level, message, extra=extra, exc_info=error, stacklevel=3)
