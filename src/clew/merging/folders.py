"""What the files beside a checkpoint's weights say of its model, read without loading anything."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from clew.errors import UserError
from clew.merging.compatibility import Described, differences
from clew.merging.heads import shapes_in

T = TypeVar("T")

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


def describe_model(folder: Path, tokenizer: Path | None = None) -> Described:
    """Return what the files of a model folder say: its config, the heads of its weights, its tokenizer's vocabulary.

    Args:
        folder: In the layout of Hugging Face.
        tokenizer: Where its tokenizer is; None is there as well.

    Raises:
        UserError: If a file cannot be read.
    """
    try:
        vocabulary, _ = _tokens((tokenizer or folder) / _TOKENIZER)
        return Described(_flat(_read(folder / _CONFIG)), shapes_in(folder), vocabulary)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"the model's files cannot be read: {error}", where=str(folder)) from error


def model_differences(one: Described, other: Described) -> list[str]:
    """Return what keeps two models from being combined, of what the files of both say.

    What only one of them says may still be so in the other: libraries fill in defaults, and leave out tensors that are
    another one under a second name.
    """
    may_be_tied = any(each.config.get("tie_word_embeddings", True) for each in (one, other))
    config, shapes, tokens = (
        _said_by_both(one.config, other.config),
        _said_by_both(one.shapes, other.shapes) if may_be_tied else (one.shapes, other.shapes),
        _said_by_both(one.vocabulary, other.vocabulary),
    )
    first, second = (Described(*parts) for parts in zip(config, shapes, tokens, strict=True))
    return differences(first, second)


def splitting_of(parts: Mapping[str, Any]) -> dict[str, str]:
    """Return what of a ``tokenizer.json``, besides the vocabulary, decides how a text is cut into tokens."""
    rules = {"merges": parts["model"].get("merges"), **{name: parts[name] for name in ("normalizer", "pre_tokenizer")}}
    return {name: json.dumps(rule, sort_keys=True) for name, rule in rules.items()}


def _said_by_both(one: Mapping[str, T], other: Mapping[str, T]) -> tuple[dict[str, T], dict[str, T]]:
    names = [name for name in one if name in other and None not in (one[name], other[name])]
    return {name: one[name] for name in names}, {name: other[name] for name in names}


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The settings within sections by dotted names, so that each counts by itself."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found


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
