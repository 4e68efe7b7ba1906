"""Setting the logger up, once, where a process begins."""

from __future__ import annotations

import logging
import sys
import warnings
from types import TracebackType
from typing import TextIO

from clew.logs.formats import ForFile, ForPrograms, ForTerminal
from clew.logs.logger import ROOT
from clew.logs.redaction import Redactor
from clew.logs.settings import LEVELS, LogSettings

LIBRARIES = {"quiet": logging.ERROR, "normal": logging.WARNING, "verbose": logging.INFO}
"""From which level on the loggers of other libraries are heard in a worker."""
_WITH_HANDLERS = ("transformers", "datasets", "huggingface_hub")
"""Libraries that would print past everybody else's logging."""


class StderrHandler(logging.Handler):
    """Writes to what ``sys.stderr`` is when something is said.

    Args:
        settings: What it was made for.
    """

    def __init__(self, settings: LogSettings) -> None:
        super().__init__()
        self.settings = settings

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record as one piece."""
        try:
            sys.stderr.write(self.format(record) + "\n")
            sys.stderr.flush()
        except Exception:
            self.handleError(record)


def configure_terminal(settings: LogSettings) -> None:
    """Let the logger ``clew`` talk to whoever sits at stderr; replaces an earlier set-up."""
    handler = StderrHandler(settings)
    handler.setFormatter(
        ForPrograms() if settings.format == "json" else ForTerminal(fields=settings.level == "verbose")
    )
    _replace(logging.getLogger(ROOT), handler)
    logging.getLogger(ROOT).setLevel(LEVELS[settings.level])


def configure_worker(settings: LogSettings) -> None:
    """Let everything that uses ``logging`` or ``warnings`` in this process write in one form to stderr."""
    handler = StderrHandler(settings)
    handler.setFormatter(ForPrograms() if settings.format == "json" else ForFile())
    _replace(logging.getLogger(), handler)
    logging.getLogger().setLevel(LIBRARIES[settings.level])
    logging.getLogger(ROOT).setLevel(LEVELS[settings.level])
    _join_libraries()
    warnings.showwarning = _show_warning


def is_configured() -> bool:
    """Say whether this process has been set up."""
    return _handler() is not None


def present() -> LogSettings:
    """Return how this process talks; without a set-up, what its environment says.

    Raises:
        UserError: If the environment says something else than what there is.
    """
    handler = _handler()
    return handler.settings if handler else LogSettings.choose()


def redact_last_words() -> None:
    """Let an exception that ends this process be shown without secrets."""

    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        import traceback

        sys.stderr.write(Redactor.of().text("".join(traceback.format_exception(kind, error, trace))))

    sys.excepthook = show


def _handler() -> StderrHandler | None:
    handlers = [*logging.getLogger(ROOT).handlers, *logging.getLogger().handlers]
    return next((handler for handler in handlers if isinstance(handler, StderrHandler)), None)


def _replace(logger: logging.Logger, handler: logging.Handler) -> None:
    for old in [old for old in logger.handlers if isinstance(old, StderrHandler)]:
        logger.removeHandler(old)
    logger.addHandler(handler)


class _Joined(logging.Logger):
    """A library's logger that keeps to the common form, whatever the library sets up when it is imported."""

    def addHandler(self, handler: logging.Handler) -> None:
        """Take no handler that prints to the terminal."""
        if type(handler) is not logging.StreamHandler:
            super().addHandler(handler)

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, True if name == "propagate" else value)


def _join_libraries() -> None:
    before = logging.getLoggerClass()
    logging.setLoggerClass(_Joined)
    try:
        for name in _WITH_HANDLERS:
            logging.getLogger(name)
    finally:
        logging.setLoggerClass(before)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    extra = {"fields": {"where": f"{filename}:{lineno}"}}
    logging.getLogger("py.warnings").warning("%s: %s", category.__name__, message, extra=extra)
