"""Engines: text generation behind one interface. The engines' libraries are imported where they are used."""

from clew.engines.base import Batch, Completion, Engine, EngineOptions, GenerationConfig, plan_batches
from clew.engines.registry import check_engine, engine_registry, load_engine

__all__ = [
    "Batch",
    "Completion",
    "Engine",
    "EngineOptions",
    "GenerationConfig",
    "check_engine",
    "engine_registry",
    "load_engine",
    "plan_batches",
]
