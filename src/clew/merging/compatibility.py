"""Whether the weights of two models mean the same, so that numbers at the same place may be combined."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

# What a config says about where a model comes from and how it is stored or used, not about what it computes.
_INCIDENTAL = frozenset(
    {
        "_name_or_path",
        "transformers_version",
        "dtype",
        "torch_dtype",
        "use_cache",
        "architectures",
        "quantization_config",
    }
)
_MISSING = "missing"
_MAX_NAMES = 3


@dataclass(frozen=True)
class Described:
    """What must agree."""

    config: Mapping[str, Any]
    """Every setting that the model's computation depends on."""
    shapes: Mapping[str, tuple[int, ...]]
    """Shape of each tensor by its name."""
    vocabulary: Mapping[str, int] = field(default_factory=dict)
    """Token to id."""
    splitting: Mapping[str, str] = field(default_factory=dict)
    """What besides decides how a text is cut into tokens, part by part; empty where it is not known."""


def differences(one: Described, other: Described) -> list[str]:
    """Return what keeps two models from being combined, a line each; empty when nothing does.

    Two configs with the same shapes may still compute different things, as with another base of the rotary positions.
    """
    return [
        *_settings(one.config, other.config),
        *_tensors(one.shapes, other.shapes),
        *_tokens(one.vocabulary, other.vocabulary),
        *_splitting(one.splitting, other.splitting),
    ]


def _settings(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted((one.keys() | other.keys()) - _INCIDENTAL):
        ours, theirs = one.get(name), other.get(name)
        if ours != theirs:
            yield f"{name} is {ours!r} and {theirs!r}"


def _tensors(one: Mapping[str, tuple[int, ...]], other: Mapping[str, tuple[int, ...]]) -> Iterator[str]:
    for names, place in ((one.keys() - other.keys(), "first"), (other.keys() - one.keys(), "second")):
        if names:
            yield f"only the {place} has {_some(sorted(names))}"
    odd = [name for name in one if name in other and one[name] != other[name]]
    if odd:
        name = odd[0]
        more = f", and {len(odd) - 1} more differ" if odd[1:] else ""
        yield f"the shape of {name} is {list(one[name])} and {list(other[name])}{more}"


def _tokens(one: Mapping[str, int], other: Mapping[str, int]) -> Iterator[str]:
    odd = [token for token in {**one, **other} if one.get(token) != other.get(token)]
    if odd:
        token = min(odd, key=lambda token: (one.get(token, other.get(token, 0)), token))
        ids = [str(tokens.get(token, _MISSING)) for tokens in (one, other)]
        yield f"the vocabularies differ in {len(odd)} tokens: {token!r} is {ids[0]} and {ids[1]}"


def _splitting(one: Mapping[str, str], other: Mapping[str, str]) -> Iterator[str]:
    for name in sorted(one.keys() & other.keys()):
        if one[name] != other[name]:
            yield f"the tokenizers cut texts in other ways ({name} differs)"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return ", ".join(names[:_MAX_NAMES]) + more
