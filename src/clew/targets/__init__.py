"""Targets: one file each. A new one is a new file here and one line in :data:`TARGETS`."""

from __future__ import annotations

from clew.targets.base import Target, Worker
from clew.targets.local import LocalTarget

TARGETS: dict[str, type[Target]] = {"local": LocalTarget}

__all__ = ["TARGETS", "LocalTarget", "Target", "Worker"]
