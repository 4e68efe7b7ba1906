"""What the files beside a checkpoint's weights say of its model, read without loading anything."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clew.merging.compatibility import Described, differences

_CONFIG, _ADAPTER, _TOKENIZER = "config.json", "adapter_config.json", "tokenizer.json"


def describe_folder(checkpoint: Path) -> Described | None:
    """Return what a checkpoint's model computes with, and how it cuts texts.

    Args:
        checkpoint: With a folder in the layout of Hugging Face, or such a folder itself.

    Returns:
        None where no file says it, as for a trainer of the user's own.
    """
    for folder in (checkpoint, *sorted(checkpoint.glob("*/"))):
        if (folder / _ADAPTER).is_file():
            base = _read(folder / _ADAPTER).get("base_model_name_or_path")
            return Described({"base": base}, {}, *_tokens(folder / _TOKENIZER))
        if (folder / _CONFIG).is_file():
            return Described(_read(folder / _CONFIG), {}, *_tokens(folder / _TOKENIZER))
    return None


def folder_differences(one: Described | None, other: Described | None) -> list[str]:
    """Return what keeps two models from being combined, as far as their files say it.

    A tokenizer that only one of them has beside it says nothing.
    """
    if one is None or other is None:
        return []
    if not (one.vocabulary and other.vocabulary):
        one, other = Described(one.config, {}), Described(other.config, {})
    return differences(one, other)


def splitting_of(parts: Mapping[str, Any]) -> dict[str, str]:
    """Return what of a ``tokenizer.json``, besides the vocabulary, decides how a text is cut into tokens."""
    rules = {"merges": parts["model"].get("merges"), **{name: parts[name] for name in ("normalizer", "pre_tokenizer")}}
    return {name: json.dumps(rule, sort_keys=True) for name, rule in rules.items()}


def _tokens(file: Path) -> tuple[dict[str, int], dict[str, str]]:
    if not file.is_file():
        return {}, {}
    parts = _read(file)
    vocabulary = parts["model"].get("vocab")
    known = dict(vocabulary) if isinstance(vocabulary, dict) else {}  # a unigram model lists pieces with their scores
    return {**known, **{one["content"]: one["id"] for one in parts.get("added_tokens", ())}}, splitting_of(parts)


def _read(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found
