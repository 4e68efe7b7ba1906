"""A million samples are inspected in the memory of a few."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "inspection.py"


@pytest.mark.slow
def test_memory_does_not_grow_with_the_samples():
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, BENCHMARK], capture_output=True, text=True, timeout=280, env=environment, check=True
    )
    memory = json.loads(done.stdout.splitlines()[0])
    assert memory["what"].startswith("an inspection of 1,000,000 samples: memory")
    assert memory["value"] < 100
