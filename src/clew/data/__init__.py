"""Data: a stateless order, packing, and the stream of sample ids. Nothing here needs torch."""

from clew.data.config import DataConfig

__all__ = ["DataConfig"]
