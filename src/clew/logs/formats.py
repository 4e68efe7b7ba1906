"""How a log record is written: for people, or as one line of JSON."""

from __future__ import annotations

import json
import logging
import math
import time
from functools import cached_property
from typing import Any

from clew.errors import ClewError
from clew.logs.redaction import Redactor


class _Redacting(logging.Formatter):
    """Takes out secrets; which ones is found out when something is said for the first time."""

    @cached_property
    def redactor(self) -> Redactor:
        """Knows the secrets of the environment."""
        return Redactor.of()


class ForTerminal(_Redacting):
    """``clew: what is the matter``; with the fields only where much is said.

    Args:
        fields: Whether to tell them.
    """

    def __init__(self, *, fields: bool = False) -> None:
        super().__init__()
        self._fields = fields

    def format(self, record: logging.LogRecord) -> str:
        """Write a record."""
        text = _with_fields(record.getMessage(), fields_of(record) if self._fields else {})
        return self.redactor.text(f"clew: {text}{_traceback(self, record)}")


class ForFile(_Redacting):
    """``2026-01-31 12:00:00 INFO clew.session: checkpoint saved step=100``, in local time."""

    def format(self, record: logging.LogRecord) -> str:
        """Write a record."""
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        text = _with_fields(record.getMessage(), fields_of(record))
        return self.redactor.text(f"{stamp} {record.levelname} {record.name}: {text}{_traceback(self, record)}")


class ForPrograms(_Redacting):
    """One line of JSON: ``t`` (Unix seconds), ``level``, ``logger``, ``message``, and the fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Write a record."""
        said: dict[str, Any] = {
            "t": round(record.created, 4),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if isinstance(record.msg, ClewError):
            error = record.msg
            parts = {"message": error.what, "where": error.where, "hint": error.hint}
            said |= {name: text for name, text in parts.items() if text}
        if trace := _traceback(self, record):
            said["traceback"] = trace.lstrip("\n")
        more = {name: _plain(value) for name, value in fields_of(record).items() if name not in said}
        # Before it is encoded: a secret with a quotation mark must not take the mark of the line with it.
        return json.dumps(self.redactor.tree({**said, **more}), ensure_ascii=False)


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return the fields of a record; those of other libraries have none."""
    return getattr(record, "fields", {})


def _with_fields(message: str, fields: dict[str, Any]) -> str:
    """Put ``key=value`` behind the first line."""
    first, newline, rest = message.partition("\n")
    return " ".join([first, *(f"{name}={_word(value)}" for name, value in fields.items())]) + newline + rest


def _word(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if text and not set(text) & set(" \t\r\n\"'=") else json.dumps(text, ensure_ascii=False)


def _plain(value: Any) -> Any:
    """What JSON has stays as it is; the rest is told in words."""
    if value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return {str(key): _plain(item) for key, item in value.items()} if isinstance(value, dict) else str(value)


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    return "\n" + formatter.formatException(record.exc_info) if record.exc_info and record.exc_info[0] else ""
