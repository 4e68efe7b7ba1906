"""The shim, compiled once, and the process before which it stands."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp

import pytest

sys.path.append(str(Path(__file__).parents[1] / "checkpoints"))  # damage.py


@pytest.fixture(scope="session")
def scratch() -> Iterator[Path]:
    """A folder in memory, where that is: syncing thousands of files tells nothing more than that they are synced."""
    memory = Path("/dev/shm")
    folder = Path(mkdtemp(prefix="clew-faults-", dir=memory if os.access(memory, os.W_OK) else None))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def bench(scratch: Path) -> Iterator[object]:
    """Where faults are met; skipped where the shim cannot be compiled."""
    from enumeration import Bench
    from shimmed import zygote

    try:
        with zygote(scratch) as made:
            yield Bench(made, scratch)
    except RuntimeError as error:
        pytest.skip(str(error))
