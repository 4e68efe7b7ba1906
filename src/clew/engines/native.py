"""Generation with the native decoder while it is trained."""

from __future__ import annotations

from typing import Any

from clew.engines.transformers import TransformersEngine
from clew.models.decoder import Decoder
from clew.models.exchange import as_huggingface


def native_engine(model: Decoder, tokenizer: Any, *, seed: int = 0) -> TransformersEngine:
    """Return an engine that generates with a decoder's present weights, and sees every later update of them.

    The decoder has no cache of keys and values; Transformers' Llama, which computes the same, lends its own.

    Args:
        model: The decoder; its weights are shared, not copied.
        tokenizer: Its tokenizer.
        seed: Seed of sampling.
    """
    llama = as_huggingface(model, tokenizer)
    llama.requires_grad_(False)
    return TransformersEngine(llama, tokenizer, seed=seed)
