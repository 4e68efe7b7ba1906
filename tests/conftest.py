"""Settings that hold for every test: one thread (two collapse when the second core is busy), no network."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator

import hypothesis
import pytest

from clew.logs.setup import StderrHandler
from cradle import Cradle

# How long an example takes says more about what else the machine does than about the code.
hypothesis.settings.register_profile("clew", deadline=None)
hypothesis.settings.load_profile("clew")

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
for name in ("CLEW_WORKSPACE", "CLEW_LOG", "CLEW_LOG_FORMAT", "CLEW_SECRETS"):
    os.environ.pop(name, None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where files are given to several processes in their order, those with slow tests come first.

    Else the last of them would be carried out alone, while the other processes have nothing left to do.
    """
    if "PYTEST_XDIST_WORKER" in os.environ:
        slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
        items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(scope="session")
def cradle() -> Iterator[Cradle]:
    """What bears the processes of tests that ask for ``borne``."""
    made = Cradle()
    yield made
    made.close()


@pytest.fixture
def borne(cradle: Cradle) -> Iterator[None]:
    """Processes of Python that a test starts have imported everything before; see :mod:`cradle`."""
    with cradle.opened():
        yield


@pytest.fixture(autouse=True)
def _talk_is_not_set_up() -> Iterator[None]:
    """A command line that a test, or a fixture of several tests, gives in this process sets up how it talks.

    The next test must not inherit that.
    """
    _forget_talk()
    yield
    _forget_talk()


def _forget_talk() -> None:
    for name, level in (("", logging.WARNING), ("clew", logging.NOTSET)):
        logger = logging.getLogger(name)
        logger.setLevel(level)
        logger.handlers[:] = [handler for handler in logger.handlers if not isinstance(handler, StderrHandler)]
