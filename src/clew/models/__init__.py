"""Models: the native decoder, its logical axes, its tokenizers, and the exchange with Hugging Face.

Torch is imported by the modules that compute (`decoder`, `axes`, `exchange`), never by the configs.
"""

from clew.models.config import ModelConfig, Shape

__all__ = ["ModelConfig", "Shape"]
