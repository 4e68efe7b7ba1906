"""Engines: text generation behind one interface. The engines' libraries are imported where they are used."""

from clew.engines.base import Batch, Completion, Engine, GenerationConfig, plan_batches

__all__ = ["Batch", "Completion", "Engine", "GenerationConfig", "plan_batches"]
