"""Settings that hold for every test: one thread (two collapse when the second core is busy), no network."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
for name in ("CLEW_WORKSPACE", "CLEW_LOG", "CLEW_LOG_FORMAT", "CLEW_SECRETS"):
    os.environ.pop(name, None)


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """A command line that a test gives in this process sets up how it talks; the next test must not inherit that."""
    loggers = [logging.getLogger(), logging.getLogger("clew")]
    before = [(logger, logger.level, list(logger.handlers)) for logger in loggers]
    yield
    for logger, level, handlers in before:
        logger.setLevel(level)
        logger.handlers[:] = handlers
