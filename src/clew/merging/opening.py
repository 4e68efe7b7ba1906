"""From where a model is to its weights, of which none is read yet, and to what must agree with other models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from clew.errors import UserError
from clew.merging.compatibility import Described
from clew.merging.folders import splitting_of
from clew.merging.loading import load_folded, stored_dtype
from clew.merging.lora import Folded, Lora, beyond
from clew.merging.weights import Files, InMemory, Weights, tensors_of
from clew.models.loading import load_tokenizer
from clew.models.source import ModelSource


class Loaded(InMemory):
    """A model that had to be loaded as a whole; to write it again takes the model itself.

    Args:
        source: Where it is.
    """

    def __init__(self, source: ModelSource) -> None:
        self.model = load_folded(source)
        super().__init__(tensors_of(self.model), stored_dtype(source))


def open_model(source: ModelSource) -> Weights:
    """Return the weights of a model, an adapter folded into them.

    They are read one tensor at a time from the safetensors files of a folder, or of a model in the hub's cache. A GGUF
    file, and an adapter that is more than products of two matrices, are loaded as a whole.

    Raises:
        UserError: If there are none that can be read.
    """
    if not source.gguf_file and getattr(model_config(source), "quantization_config", None):
        raise UserError(
            "its weights are stored in few bits, which cannot be merged",
            where=source.base,
            hint="merge the models that it was made of, and quantize the result",
        )
    if source.gguf_file is None and _is_plain(source):
        base = Files(folder_of(source), tied_names(source))
        if source.adapter is None:
            return base
        adapter = Lora(source.adapter)
        if adapter.layout.keys() <= base.layout.keys():
            return Folded(base, adapter)
    # Transformers names some weights otherwise than their file does, and PEFT knows all kinds of adapters.
    return Loaded(source)


def describe(weights: Weights, source: ModelSource, *, as_adapter: bool = False) -> Described:
    """Return what must agree with another model for their weights to be combined.

    Args:
        weights: Its tensors.
        source: Where it is.
        as_adapter: Whether the tensors are what an adapter adds to its base, which then must be the same.
    """
    settings = {"base": source.reference} if as_adapter else model_config(source).to_dict()
    shapes = {name: one.shape for name, one in weights.layout.items()}
    tokenizer = load_tokenizer(source)
    splitting = {} if source.gguf_file else _splitting(tokenizer)
    return Described(settings, shapes, tokenizer.get_vocab(), splitting)


def folder_of(source: ModelSource) -> Path:
    """Return the folder of a base; one that a hub has is fetched unless it is in the cache.

    Raises:
        UserError: If it is neither.
    """
    if Path(source.base).is_dir():
        return Path(source.base)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(source.base, allow_patterns=["*.safetensors", "*.json"]))
    except (OSError, ValueError) as error:
        raise UserError(
            f"there is no folder {source.base!r}, and no such model in the local cache or on a hub that can be reached",
            hint="give the path of a model folder or a .gguf file, or download the model first",
        ) from error


def model_config(source: ModelSource) -> Any:
    """Return the Transformers config of a base."""
    from transformers import AutoConfig

    if source.gguf_file:
        return AutoConfig.from_pretrained(source.base, gguf_file=source.gguf_file, trust_remote_code=False)
    return AutoConfig.from_pretrained(folder_of(source), trust_remote_code=False)


def tied_names(source: ModelSource) -> set[str]:
    """Return the names that stand for another tensor of the model, so that it is merged once."""
    return set(hollow(source).all_tied_weights_keys)


def hollow(source: ModelSource) -> Any:
    """Return the model without its weights."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(model_config(source), trust_remote_code=False)


def _is_plain(source: ModelSource) -> bool:
    if source.adapter is None:
        return True
    config = json.loads((source.adapter / "adapter_config.json").read_text(encoding="utf-8"))
    return not beyond(config, Files(source.adapter).layout)


def _splitting(tokenizer: Any) -> dict[str, str]:
    """What besides the vocabulary decides how a text is cut into tokens."""
    if not tokenizer.is_fast:
        return {}
    return splitting_of(json.loads(tokenizer.backend_tokenizer.to_str()))
