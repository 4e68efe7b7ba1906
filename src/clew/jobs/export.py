"""Export: a model as a folder for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from clew.config import config
from clew.errors import UserError
from clew.jobs.base import JobConfig, job
from clew.models.source import ModelReference, check_reference, resolve
from clew.session import Outcome, Session


@config
class ExportConfig(JobConfig):
    """Which model, and in what form."""

    model: ModelReference
    """A model or adapter folder, a .gguf file, a hub id, or `run:NAME` with an optional `@best`, `@last` or `@STEP`."""
    format: Literal["huggingface"] = "huggingface"
    """A folder with config.json, safetensors and tokenizer, as Transformers, vLLM and llama.cpp's converter read it."""
    adapter: Literal["fold", "keep"] = "fold"
    """Whether an adapter is added to the weights of its base, or written as an adapter for it."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """The type of a whole model's weights; auto is the one in which the base is stored."""


def _check(config: ExportConfig, runs: Path) -> None:
    check_reference(config.model, runs)
    if config.adapter == "keep" and resolve(config.model, runs).adapter is None:
        raise UserError(f"{config.model} is no adapter that could be kept", hint="set adapter=fold, or leave it out")


@job(check=_check)
def export(session: Session[ExportConfig]) -> Outcome:
    """Write a model as a Hugging Face folder, its adapter folded into it."""
    import torch

    from clew.merging.loading import load_adapter, load_folded, save, stored_dtype
    from clew.models.loading import load_tokenizer

    config = session.config
    _check(config, session.run.path.parent)
    source = resolve(config.model, session.run.path.parent)
    keeps = config.adapter == "keep"
    model = load_adapter(source) if keeps else load_folded(source)
    if not keeps:
        model.to(stored_dtype(source) if config.dtype == "auto" else getattr(torch, config.dtype))
    with session.artifact("adapter" if keeps else "model") as folder:
        save(model, load_tokenizer(source), folder, as_adapter=keeps)
    count = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad or not keeps)
    return Outcome(
        metrics={"parameters": float(count)}, notes={"base": source.reference, "adapter": bool(source.adapter)}
    )
