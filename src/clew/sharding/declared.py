"""What a model says of its parameters, and the same by patterns of names for models that say nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Literal

from clew.errors import UserError

OTHER = "other"
"""The axis of every dimension of a parameter that nobody declared and that stays whole in compute."""

PATTERNS: Mapping[str, str] = MappingProxyType(
    {
        # Llama, Mistral, Qwen, SmolLM and their kin; a linear layer's weight is [out, in].
        "*embed_tokens.weight": "vocab embed",
        "*lm_head.weight": "vocab embed",
        "*.q_norm.weight": "head",
        "*.k_norm.weight": "head",
        "*norm.weight": "embed",
        "*.q_proj.weight": "heads embed",
        "*.q_proj.bias": "heads",
        "*.[kv]_proj.weight": "kv embed",
        "*.[kv]_proj.bias": "kv",
        "*.o_proj.weight": "embed heads",
        "*.o_proj.bias": "embed",
        "*.gate_proj.weight": "mlp embed",
        "*.gate_proj.bias": "mlp",
        "*.up_proj.weight": "mlp embed",
        "*.up_proj.bias": "mlp",
        "*.down_proj.weight": "embed mlp",
        "*.down_proj.bias": "embed",
        # GPT-2: its layers store [in, out], and queries, keys and values in one matrix, which no device can have a part
        # of without the others: only what lies between the steps is split.
        "*wte.weight": "vocab embed",
        "*wpe.weight": "position embed",
        "*.ln_?.weight": "embed",
        "*.ln_?.bias": "embed",
        "*.c_attn.weight": "embed fused",
        "*.c_attn.bias": "fused",
        "*.c_fc.weight": "embed fused",
        "*.c_fc.bias": "fused",
        "*.c_proj.weight": "fused embed",
        "*.c_proj.bias": "embed",
    }
)
"""Glob patterns of parameter names, and the axes of what they match; the first that matches counts."""

SHARED_INPUT = ("*.self_attn", "*.mlp")
"""Of models that the patterns know: modules that use the stream for nothing but the products of their own layers."""

_NUMBER = re.compile(r"^(?P<layer>.*?\.\d+)\.")


@dataclass(frozen=True)
class Declared:
    """What is known of a model's parameters; enough to plan with, without the model."""

    axes: Mapping[str, tuple[str, ...]]
    """Logical axes by parameter, outermost dimension first; parameters that are one another are there once."""
    shapes: Mapping[str, tuple[int, ...]]
    """Shapes by parameter."""
    units: Mapping[str, int] = field(default_factory=dict)
    """How many numbers of an axis stay together; 1 where it says nothing."""
    shared_input: tuple[str, ...] = ()
    """Glob patterns of modules that use their first argument for nothing but the products of their own layers."""
    activations: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Axes of what a forward pass computes, by name; empty for a model that declares none."""

    def input_of(self, name: str) -> str:
        """Return the module whose input a product takes: that of its own module, unless it is shared with others."""
        module = name.rpartition(".")[0]
        parent = module.rpartition(".")[0]
        return parent if any(fnmatchcase(parent, pattern) for pattern in self.shared_input) else module

    @property
    def known(self) -> dict[str, str]:
        """A parameter of each axis."""
        return {axis: name for name, axes in reversed(list(self.axes.items())) for axis in axes}

    def size(self, axis: str) -> int:
        """Return the size of an axis, that of the first parameter that has it; 0 when none does."""
        for name, axes in self.axes.items():
            if axis in axes:
                return self.shapes[name][axes.index(axis)]
        return 0


def by_patterns(
    shapes: Mapping[str, tuple[int, ...]],
    patterns: Mapping[str, str],
    *,
    unmatched: Literal["error", "replicate"],
) -> dict[str, tuple[str, ...]]:
    """Return axes of parameters by their names.

    Args:
        shapes: Shapes by name.
        patterns: The user's own, which go before :data:`PATTERNS`.
        unmatched: What becomes of parameters that no pattern matches.

    Raises:
        UserError: If no pattern matches some parameters and that is an error, or one matches a parameter with another
            number of dimensions.
    """
    table = {**patterns, **{name: axes for name, axes in PATTERNS.items() if name not in patterns}}
    found: dict[str, tuple[str, ...]] = {}
    missing = []
    for name, shape in shapes.items():
        pattern = next((pattern for pattern in table if fnmatchcase(name, pattern)), None)
        if pattern is None:
            missing.append(name)
            found[name] = (OTHER,) * len(shape)
            continue
        found[name] = tuple(table[pattern].split())
        if len(found[name]) != len(shape):
            raise UserError(
                f"{name} has {len(shape)} dimensions, but the pattern declares {table[pattern]!r}",
                where=f"mesh.axes.{pattern}",
                hint="name one axis for each dimension, outermost first",
            )
    if missing and unmatched == "error":
        raise UserError(
            f"no pattern declares the axes of {_some(missing)}",
            where="mesh.axes",
            hint="add patterns such as '*.proj.weight': 'embed mlp', or set mesh.unmatched=replicate",
        )
    return found


def layer_name(name: str) -> str:
    """Return the name of the numbered module that a parameter lies in: ``model.layers.3``; empty outside of any."""
    found = _NUMBER.match(name)
    return found["layer"] if found else ""


def family(name: str) -> str:
    """Return a name with a star for each number: what it has in common with those of the other layers."""
    return ".".join("*" if part.isdigit() else part for part in name.split("."))


def _some(names: list[str]) -> str:
    """The kinds of parameters, each once: a model has as many layers as it likes."""
    kinds = list(dict.fromkeys(family(name) for name in names))
    return ", ".join(kinds[:8]) + (f" and {len(kinds) - 8} more" if len(kinds) > 8 else "")
