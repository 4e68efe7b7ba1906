"""Where engines are found by name. A new one is a new file here and one line in :data:`BUILTIN`."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

from clew.config import Registry
from clew.engines.base import Engine, EngineOptions
from clew.models.source import ModelSource

BUILTIN = {
    "transformers": "clew.engines.transformers:load_engine",
    "vllm": "clew.engines.vllm:load_engine",
}

LoadEngine = Callable[[ModelSource, EngineOptions], Engine]
"""What a name stands for: a function that loads a model into an engine."""


def engine_registry() -> Registry:
    """Return the registry of engines: what ships, and what other packages offer as ``clew.engines``."""
    return Registry("engine", BUILTIN, "clew.engines")


def check_engine(name: str) -> None:
    """Check that there is an engine of this name, without importing it.

    Raises:
        ConfigError: If there is none; with the nearest name.
    """
    registry = engine_registry()
    if name != "auto" and not registry.reference(name):
        registry.resolve(name)  # says what is known


def load_engine(name: str, source: ModelSource, options: EngineOptions) -> Engine:
    """Load a model into an engine.

    Args:
        name: A registered engine, or ``auto``: vLLM on CUDA where it is installed and the weights are not quantised,
            else Transformers.
        source: The model.
        options: How it is loaded.

    Raises:
        UserError: If the engine, its library or the model is not there, or the engine cannot do what is asked.
    """
    load: LoadEngine = engine_registry().resolve(_chosen(options) if name == "auto" else name)
    return load(source, options)


def _chosen(options: EngineOptions) -> str:
    fast = options.device == "cuda" and options.quantize == "none" and find_spec("vllm") is not None
    return "vllm" if fast else "transformers"
