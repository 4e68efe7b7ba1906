"""Weights that a pretraining begins with, instead of drawn ones."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from clew.errors import UserError
from clew.jobs.tokenizing import fingerprint
from clew.models.config import ModelConfig
from clew.models.exchange import Found, find_huggingface
from clew.models.loading import load_tokenizer
from clew.models.source import resolve

_WHERE = "start"


def find_start(reference: str, runs: Path, config: ModelConfig, tokenizer: Any) -> Found:
    """Return the weights that a reference names, once it is known that they fit; none of them is read yet.

    Args:
        reference: As :func:`clew.models.source.resolve` takes it; a whole model.
        runs: The folder of runs.
        config: The decoder's sizes.
        tokenizer: Of the texts.

    Raises:
        UserError: If they are of another model, or made for other tokens.
    """
    source = resolve(reference, runs)
    if source.adapter or source.gguf_file or not source.is_local:
        hint = "an export job makes one of adapters and GGUF files; those of a hub are to be downloaded"
        raise UserError("a pretraining begins with a whole model in a folder", where=_WHERE, hint=hint)
    found = find_huggingface(Path(source.base))
    mine, theirs = _numbers(config), _numbers(found.config)
    if odd := {name: value for name, value in theirs.items() if value != mine[name]}:
        said = ", ".join(f"model.{name}={value}" for name, value in odd.items())
        raise UserError("these weights are of another model than `model` describes", where=_WHERE, hint=f"set {said}")
    if fingerprint(tokenizer) != fingerprint(load_tokenizer(source)):
        hint = f"set tokenizer={{type: huggingface, path: {source.base}}}"
        raise UserError("these weights were made for another tokenizer", where=_WHERE, hint=hint)
    return found


def sizes_of(config: ModelConfig) -> dict[str, Any]:
    """Return what a config has to say of ``model`` for a decoder that computes the same, by its keys."""
    usual = ModelConfig()
    sizes = ("depth", "width", "heads", "kv_heads", "mlp_width")
    return {name: value for name, value in _numbers(config).items() if name in sizes or value != getattr(usual, name)}


def _numbers(config: ModelConfig) -> dict[str, Any]:
    """All that decides what a decoder computes, by the keys of its config."""
    shape = config.shape
    said = {field.name: getattr(config, field.name) for field in fields(config)}
    return {
        **said,
        "width": shape.width,
        "heads": shape.heads,
        "kv_heads": shape.kv_heads,
        "mlp_width": shape.mlp_width,
    }
