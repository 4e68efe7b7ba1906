"""The decoder's size, from one dial.

====================  ==================================  ==================================================
quantity              follows from ``depth``              why
====================  ==================================  ==================================================
layers                ``depth``
width                 ``64 * depth``                      a constant width : depth ratio
heads                 ``width / 64``, at least 4          64 numbers a head; fewer than 4 heads learn slowly
key/value heads       ``heads / 2``, ``heads`` when odd   half the cache of generation
MLP width             ``8/3 * width``, up to 64s          SwiGLU with the parameters of a 4x MLP
learning rate         ``6e-4 * 768 / width``, <= 1e-3     see :attr:`Shape.learning_rate`
====================  ==================================  ==================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from clew.config import config

HEAD_WIDTH = 64
WIDTH_PER_LAYER = 64
REFERENCE_WIDTH = 768
REFERENCE_LEARNING_RATE = 6e-4
MAX_LEARNING_RATE = 1e-3
MIN_HEADS = 4

_Size = Annotated[int, Field(ge=1)]


@dataclass(frozen=True)
class Shape:
    """The sizes that a decoder is built with; counts and widths, no unit."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    mlp_width: int
    tied: bool

    @property
    def head_width(self) -> int:
        """Numbers in one head's query, key or value."""
        return self.width // self.heads

    @property
    def learning_rate(self) -> float:
        """Peak AdamW learning rate that suits this width.

        ``6e-4`` at width 768, falling as 1/width: the rule of maximal-update parametrization for hidden matrices (Yang
        et al. 2022, arXiv:2203.03466), which passes through the values of GPT-3 (Brown et al. 2020, table 2.1). It is
        capped at ``1e-3``: with the small batches of small models, 3.6e-3 at width 128 did not learn to add.
        """
        return min(MAX_LEARNING_RATE, REFERENCE_LEARNING_RATE * REFERENCE_WIDTH / self.width)

    def num_parameters(self, vocab_size: int) -> int:
        """Count the trained numbers of a decoder of this shape; tied embeddings count once."""
        attention = self.width * self.head_width * (2 * self.heads + 2 * self.kv_heads)
        layer = attention + 3 * self.width * self.mlp_width + 2 * self.width
        embeddings = vocab_size * self.width * (1 if self.tied else 2)
        return self.layers * layer + embeddings + self.width


@config
class ModelConfig:
    """A decoder-only transformer in the Llama family; all sizes follow from `depth` unless they are given."""

    depth: _Size = 4
    """Number of layers: the one dial. Width, heads and learning rate follow from it."""
    width: _Size | None = None
    """Width of the residual stream; null means 64 * depth."""
    heads: _Size | None = None
    """Query heads; null means one for every 64 of the width, and at least 4."""
    kv_heads: _Size | None = None
    """Key/value heads, a divisor of heads; null means half of them, or all when they are odd."""
    mlp_width: _Size | None = None
    """Inner width of the MLP; null means 8/3 of the width, rounded up to a multiple of 64."""
    tied: bool = True
    """Whether the output layer is the embedding table."""
    rope_theta: Annotated[float, Field(gt=0)] = 10_000.0
    """Base of the rotary position wavelengths."""
    norm_eps: Annotated[float, Field(gt=0)] = 1e-5
    """Added to the mean square in RMSNorm."""

    def __post_init__(self) -> None:
        shape = self.shape
        if shape.width % shape.heads or shape.head_width % 2:
            raise ValueError(
                f"width and heads: a width of {shape.width} does not split into {shape.heads} heads of an even width"
            )
        if shape.heads % shape.kv_heads:
            raise ValueError(
                f"heads and kv_heads: {shape.heads} query heads cannot share {shape.kv_heads} key/value heads evenly"
            )

    @property
    def shape(self) -> Shape:
        """The sizes, with everything that was left open taken from `depth`."""
        width = self.width or WIDTH_PER_LAYER * self.depth
        heads = self.heads or max(MIN_HEADS, width // HEAD_WIDTH)
        return Shape(
            layers=self.depth,
            width=width,
            heads=heads,
            kv_heads=self.kv_heads or (heads // 2 if heads % 2 == 0 else heads),
            mlp_width=self.mlp_width or _round_up(8 * width / 3, 64),
            tied=self.tied,
        )


def _round_up(value: float, multiple: int) -> int:
    return -int(-value // multiple) * multiple
