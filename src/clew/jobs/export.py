"""Export: a model as a folder or a file for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from clew.config import config
from clew.errors import UserError
from clew.jobs.base import JobConfig, job
from clew.models.source import ModelReference, ModelSource, check_reference, resolve
from clew.session import Outcome, Session


@config
class ExportConfig(JobConfig):
    """Which model, and in what form."""

    model: ModelReference
    """A model or adapter folder, .gguf file, hub id, URL, or `run:NAME` with optional `@best`, `@last` or `@STEP`."""
    format: Literal["huggingface", "gguf"] = "huggingface"
    """A folder as Transformers and vLLM read it, with config.json, safetensors, tokenizer; or a file for llama.cpp."""
    adapter: Literal["fold", "keep"] = "fold"
    """Whether an adapter is added to the weights of its base, or written as an adapter for it."""
    dtype: Literal["auto", "float32", "bfloat16", "float16", "q8_0"] = "auto"
    """The type of a whole model's weights; auto is the one in which the base is stored. q8_0 (8 bits) is GGUF's."""

    def __post_init__(self) -> None:
        if self.format == "gguf" and self.adapter == "keep":
            raise ValueError("format and adapter: a GGUF file holds a whole model, so the adapter must be folded")
        if self.dtype == "q8_0" and self.format != "gguf":
            raise ValueError("dtype and format: q8_0 is a type of format gguf alone")


def _check(config: ExportConfig, runs: Path) -> None:
    check_reference(config.model, runs)
    if config.adapter == "keep" and resolve(config.model, runs).adapter is None:
        raise UserError(f"{config.model} is no adapter that could be kept", hint="set adapter=fold, or leave it out")


@job(check=_check)
def export(session: Session[ExportConfig]) -> Outcome:
    """Write a model as a Hugging Face folder or a GGUF file, its adapter folded into it."""
    from clew.merging.loading import load_adapter, load_folded, save
    from clew.models.loading import load_tokenizer

    config = session.config
    _check(config, session.run.path.parent)
    source = resolve(config.model, session.run.path.parent)
    keeps = config.adapter == "keep"
    model = load_adapter(source) if keeps else load_folded(source)
    if config.format == "gguf":
        _write_gguf(session, model, source)
    else:
        if not keeps:
            model.to(_dtype(config, source))
        with session.artifact("adapter" if keeps else "model") as folder:
            save(model, load_tokenizer(source), folder, as_adapter=keeps)
    count = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad or not keeps)
    return Outcome(
        metrics={"parameters": float(count)}, notes={"base": source.reference, "adapter": bool(source.adapter)}
    )


def _write_gguf(session: Session[ExportConfig], model: Any, source: ModelSource) -> None:
    from clew.models.gguf_export import save_gguf
    from clew.models.loading import load_tokenizer

    config = session.config
    kind: Any = "q8_0" if config.dtype == "q8_0" else str(_dtype(config, source)).removeprefix("torch.")
    with session.artifact("model.gguf") as path:
        save_gguf(model, load_tokenizer(source), path, kind)


def _dtype(config: ExportConfig, source: ModelSource) -> Any:
    import torch

    from clew.merging.loading import stored_dtype

    return stored_dtype(source) if config.dtype == "auto" else getattr(torch, config.dtype)
