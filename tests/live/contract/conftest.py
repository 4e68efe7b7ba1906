"""The contract runs jobs, too; what their tests share lies in their folder."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "jobs"))
