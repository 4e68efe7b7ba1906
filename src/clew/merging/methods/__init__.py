"""Merge methods, one file each. A new one is a file here and a line in :mod:`clew.merging.methods.registry`.

As a task is its config, so is a method: its fields are its options.
"""

from clew.merging.methods.base import MergeMethod
from clew.merging.methods.registry import method_registry

__all__ = ["MergeMethod", "method_registry"]
