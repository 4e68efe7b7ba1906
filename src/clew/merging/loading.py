"""Models that are to be combined or handed on: float32, on the CPU, adapters beside their base or folded into it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clew.merging.average import tensors_of
from clew.merging.compatibility import Described
from clew.models.loading import load_model, load_tokenizer
from clew.models.source import ModelSource

# What of an adapter's config decides what its matrices do.
_OF_ADAPTER = (
    "alpha_pattern", "bias", "fan_in_fan_out", "lora_alpha", "modules_to_save", "peft_type", "r", "rank_pattern",
    "target_modules", "use_dora", "use_rslora",
)  # fmt: skip


def load_folded(source: ModelSource) -> Any:
    """Load a model in float32; an adapter is added to the weights of its base, and is gone."""
    model = load_model(source)
    return model.merge_and_unload() if source.adapter else model


def load_adapter(source: ModelSource) -> Any:
    """Load an adapter around its base; only the adapter's weights require gradients."""
    return load_model(source, trainable_adapter=True)


def adapter_tensors(model: Any) -> dict[str, Any]:
    """Return the tensors of an adapter by name, without those of its base."""
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    return {name: tensor for name, tensor in tensors_of(model).items() if name in trained}


def describe(model: Any, source: ModelSource, *, as_adapter: bool) -> Described:
    """Return what must agree with another model or adapter for their weights to be combined."""
    tensors = adapter_tensors(model) if as_adapter else tensors_of(model)
    if as_adapter:
        own = model.peft_config["default"].to_dict()
        settings = {"base": source.reference} | {name: _plain(own.get(name)) for name in _OF_ADAPTER}
    else:
        settings = model.config.to_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    return Described(settings, shapes, load_tokenizer(source).get_vocab())


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


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, set) else value
