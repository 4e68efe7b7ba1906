"""A workspace for walks."""

from __future__ import annotations

from pathlib import Path

import pytest

from clew.runs import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    place = Workspace(tmp_path)
    place.runs.mkdir()
    return place
