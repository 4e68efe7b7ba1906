"""Merging: one set of weights from several. Torch is imported by the modules that compute."""

from clew.merging.compatibility import Described, differences

__all__ = ["Described", "differences"]
