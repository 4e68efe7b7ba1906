"""A Hub on loopback with the real client, runs of the counting job that are whole without a worker, two workspaces."""

from __future__ import annotations

from types import SimpleNamespace

import hub_server
import pytest

from clew.runs import Workspace


@pytest.fixture
def hub(monkeypatch):
    """The stand-in, which the client of this process and of those that it starts talks to."""
    from huggingface_hub import constants
    from huggingface_hub.utils import close_session

    with hub_server.serve() as hub:
        # Read when huggingface_hub is imported, which other tests have done by now.
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        for name, value in hub_server.environment(hub).items():
            monkeypatch.setenv(name, value)
        yield hub
        close_session()


@pytest.fixture
def here(tmp_path):
    return Workspace(tmp_path / "here")


@pytest.fixture
def there(tmp_path):
    return Workspace(tmp_path / "there")


@pytest.fixture
def impatient(monkeypatch):
    """The waits between tries, without the waiting; the tries stay."""
    waits: list[float] = []
    monkeypatch.setattr("clew.remote.errors.time", SimpleNamespace(sleep=waits.append))
    return waits
