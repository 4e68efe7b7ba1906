"""Models that are to be combined or handed on: float32, on the CPU, adapters beside their base or folded into it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clew.models.loading import load_model
from clew.models.source import ModelSource


def load_folded(source: ModelSource) -> Any:
    """Load a model in float32; an adapter is added to the weights of its base, and is gone."""
    model = load_model(source)
    return model.merge_and_unload() if source.adapter else model


def load_adapter(source: ModelSource) -> Any:
    """Load an adapter around its base; only the adapter's weights require gradients."""
    return load_model(source, trainable_adapter=True)


def stored_dtype(source: ModelSource) -> Any:
    """Return the dtype that a base's weights are stored in; float32 where its config does not say."""
    import torch
    from transformers import AutoConfig

    if source.gguf_file:
        return torch.float32
    return AutoConfig.from_pretrained(source.base, trust_remote_code=False).dtype or torch.float32


def save(model: Any, tokenizer: Any, folder: Path, *, as_adapter: bool) -> None:
    """Write a folder that Transformers (or PEFT, for an adapter) loads, without a word about where it came from."""
    if as_adapter:
        # To find out by itself whether embeddings are trained, PEFT would ask a hub for the base.
        model.save_pretrained(folder, selected_adapters=["default"], save_embedding_layers=False)
    else:
        model.name_or_path = model.config._name_or_path = ""
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
