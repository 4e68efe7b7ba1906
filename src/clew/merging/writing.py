"""Merged weights as a folder that Transformers or PEFT loads, written while they are merged."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clew.merging.loading import save
from clew.merging.lora import Lora, factor, factor_names, factored_config
from clew.merging.merge import Merge
from clew.merging.opening import Loaded, folder_of, hollow
from clew.merging.weights import Layout, TensorFile, put
from clew.models.loading import load_tokenizer
from clew.models.source import ModelSource


def write_model(merged: Merge, source: ModelSource, folder: Path, tick: Callable[[], None]) -> None:
    """Write a whole model without a word about where it came from.

    Args:
        merged: Carried out here, one tensor in memory at a time.
        source: The first model, whose config and tokenizer are written beside the weights.
        folder: Made here.
        tick: Called after each tensor.
    """
    dtype = next(one.dtype for one in merged.layout.values() if one.dtype.is_floating_point)
    if isinstance(first := merged.models[0], Loaded):
        put(first.model, dict(_ticking(merged, tick)))
        save(first.model.to(dtype), load_tokenizer(source), folder, as_adapter=False)
        return
    folder.mkdir(parents=True)
    _write(folder / "model.safetensors", merged.layout, _ticking(merged, tick))
    model = hollow(source)
    config = model.config
    config._name_or_path, config.architectures = "", [type(model).__name__]
    config.dtype = dtype
    config.save_pretrained(folder)
    _copy_generation(source, folder)
    load_tokenizer(source).save_pretrained(folder)


def write_adapter(
    merged: Merge,
    adapters: Sequence[Lora],
    source: ModelSource,
    folder: Path,
    tick: Callable[[], None],
    *,
    rank: int | None = None,
    dtype: torch.dtype | None = None,
) -> dict[str, Any]:
    """Factor merged differences again, by truncated SVD, and write them as an adapter.

    Args:
        merged: Of differences in float64; ``merged.dtype`` is float64.
        adapters: Those that are merged.
        source: The first of them, whose config and tokenizer are taken.
        folder: Made here.
        tick: Called after each tensor.
        rank: Of the result; None is the largest of the adapters.
        dtype: Of the result; None is that of the first adapter.

    Returns:
        The rank, and how much of the differences it keeps: the part of their squared norm, of the least one too.
    """
    rank = rank or max(one.rank for one in adapters)
    folder.mkdir(parents=True)
    kept: list[float] = []
    tensors = {}
    for name, delta in _ticking(merged, tick):
        one, other, part = factor(delta, rank)
        for key, matrix in zip(factor_names(name), (one, other), strict=True):
            tensors[key] = matrix.to(dtype or adapters[0].dtype)
        kept.append(part)
    layout = {name: Layout(tuple(one.shape), one.dtype) for name, one in tensors.items()}
    _write(folder / "adapter_model.safetensors", layout, tensors.items())
    config = factored_config(adapters[0].config, merged.layout, rank)
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    load_tokenizer(source).save_pretrained(folder)
    return {"rank": rank, "kept_mean": sum(kept) / len(kept), "kept_least": min(kept)}


def _ticking(tensors: Iterable[tuple[str, Tensor]], tick: Callable[[], None]) -> Iterator[tuple[str, Tensor]]:
    for named in tensors:
        yield named
        tick()


def _write(path: Path, layout: Mapping[str, Layout], tensors: Iterable[tuple[str, Tensor]]) -> None:
    with TensorFile(path, layout) as file:
        for name, tensor in tensors:
            file.write(name, tensor)


def _copy_generation(source: ModelSource, folder: Path) -> None:
    if source.gguf_file is None and (settings := folder_of(source) / "generation_config.json").is_file():
        (folder / settings.name).write_bytes(settings.read_bytes())
