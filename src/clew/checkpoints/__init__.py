"""Checkpoints: save, verify, rotate, restore. Torch is imported only by the modules that hold tensors."""

from clew.checkpoints.manifest import Manifest
from clew.checkpoints.store import Checkpoint, CheckpointStore

__all__ = ["Checkpoint", "CheckpointStore", "Manifest"]
