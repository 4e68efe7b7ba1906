"""A decoder in the Hugging Face layout, written while its weights arrive: none of them is kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from clew.checkpoints.shards import Stored
from clew.merging.weights import Layout, TensorFile
from clew.models.decoder import Decoder
from clew.models.exchange import foreign_name, save_without_weights


def stream_huggingface(model: Decoder, tokenizer: Any, weights: Iterable[tuple[str, Tensor]], folder: Path) -> None:
    """Write a folder that ``AutoModelForCausalLM`` loads, with one tensor in memory at a time.

    Args:
        model: The decoder, in whole or in parts.
        tokenizer: Its tokenizer.
        weights: By the decoder's names and in its order, tied ones once; whole.
        folder: Made here.
    """
    folder.mkdir()
    layout = {
        foreign_name(name): Layout(tuple(parameter.shape), parameter.dtype)
        for name, parameter in model.named_parameters()
    }
    with TensorFile(folder / "model.safetensors", layout) as file:
        for name, tensor in weights:
            file.write(foreign_name(name), tensor.cpu())
    save_without_weights(model, tokenizer, folder)


def read_all(stored: Mapping[str, Stored]) -> Iterable[tuple[str, Tensor]]:
    """Yield stored tensors one after the other."""
    return ((name, one.read()) for name, one in stored.items())
