"""The native decoder: a Llama-family transformer in plain PyTorch.

Pre-norm blocks of grouped-query attention with rotary positions and a SwiGLU MLP, RMSNorm, no biases. It computes what
Transformers' `LlamaForCausalLM` computes, so that :mod:`clew.models.exchange` only has to rename the weights.

Sources: RoPE, Su et al. 2021 (arXiv:2104.09864); RMSNorm, Zhang & Sennrich 2019 (arXiv:1910.07467); SwiGLU, Shazeer
2020 (arXiv:2002.05202); grouped-query attention, Ainslie et al. 2023 (arXiv:2305.13245).

Letters of shapes: B batch, T positions, C width, H query heads, K key/value heads, D head width, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clew.models.config import ModelConfig, Shape

EMBEDDING_STD = 0.02


class Decoder(nn.Module):
    """Token ids to next-token logits.

    Args:
        config: Sizes and constants.
        vocab_size: Number of token ids.
        context: Longest sequence, in positions.
    """

    def __init__(self, config: ModelConfig, vocab_size: int, context: int) -> None:
        super().__init__()
        shape = config.shape
        self.config = config
        self.shape = shape
        self.vocab_size = vocab_size
        self.context = context
        self.embed = nn.Embedding(vocab_size, shape.width)
        self.layers = nn.ModuleList(Block(shape, config.norm_eps) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.width, eps=config.norm_eps)
        self.head = nn.Linear(shape.width, vocab_size, bias=False)
        cos, sin = rotary_table(context, shape.head_width, config.rope_theta)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        if config.tied:
            self.head.weight = self.embed.weight
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights.

        Matrices get a standard deviation of ``1/sqrt(fan_in)``. Those that write into the residual stream get less by
        ``sqrt(2 * layers)``, so that the stream's variance does not grow with depth (Radford et al. 2019).
        """
        for name, parameter in self.named_parameters():
            if parameter.dim() == 1:
                nn.init.ones_(parameter)
            elif name in ("embed.weight", "head.weight"):
                nn.init.normal_(parameter, std=EMBEDDING_STD)
            else:
                writes = name.endswith(("out.weight", "down.weight"))
                scale = (2 * self.shape.layers) ** -0.5 if writes else 1.0
                nn.init.normal_(parameter, std=scale * parameter.shape[1] ** -0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        """Predict each next token.

        Args:
            tokens: [B, T] int64.

        Returns:
            Logits [B, T, V] in the weights' dtype (autocast's, inside autocast).

        Raises:
            ValueError: If T exceeds the context.
        """
        logits: Tensor = self.head(self.hidden(tokens))
        return logits

    def hidden(self, tokens: Tensor) -> Tensor:
        """Return the last hidden states [B, T, C], normalised, from which the head predicts.

        Args:
            tokens: [B, T] int64.

        Raises:
            ValueError: If T exceeds the context.
        """
        length = tokens.shape[1]
        if length > self.context:
            raise ValueError(f"{length} positions, but this decoder's context is {self.context}")
        cos, sin = self.get_buffer("cos")[:length], self.get_buffer("sin")[:length]
        stream = self.embed(tokens)
        for layer in self.layers:
            stream = layer(stream, cos, sin)
        states: Tensor = self.norm(stream)
        return states


class Block(nn.Module):
    """One layer: attention, then MLP, each on the normalised stream and added to it."""

    def __init__(self, shape: Shape, eps: float) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(shape.width, eps=eps)
        self.attention = Attention(shape)
        self.mlp_norm = nn.RMSNorm(shape.width, eps=eps)
        self.mlp = Mlp(shape)

    def forward(self, stream: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Map [B, T, C] to [B, T, C]."""
        stream = stream + self.attention(self.attention_norm(stream), cos, sin)
        out: Tensor = stream + self.mlp(self.mlp_norm(stream))
        return out


class Attention(nn.Module):
    """Causal attention, in which H / K query heads share each key/value head."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.head_width = shape.head_width
        self.query = nn.Linear(shape.width, shape.heads * shape.head_width, bias=False)
        self.key = nn.Linear(shape.width, shape.kv_heads * shape.head_width, bias=False)
        self.value = nn.Linear(shape.width, shape.kv_heads * shape.head_width, bias=False)
        self.out = nn.Linear(shape.heads * shape.head_width, shape.width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Map [B, T, C] to [B, T, C]; position t sees positions 0..t."""
        query = rotate(self._split(self.query(x)), cos, sin)
        key = rotate(self._split(self.key(x)), cos, sin)
        mixed = F.scaled_dot_product_attention(
            query, key, self._split(self.value(x)), is_causal=True, enable_gqa=query.shape[1] != key.shape[1]
        )
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out

    def _split(self, x: Tensor) -> Tensor:
        """[B, T, heads * D] to [B, heads, T, D]."""
        batch, length, _ = x.shape
        return x.view(batch, length, -1, self.head_width).transpose(1, 2)


class Mlp(nn.Module):
    """SwiGLU: ``down(silu(gate(x)) * up(x))``."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate = nn.Linear(shape.width, shape.mlp_width, bias=False)
        self.up = nn.Linear(shape.width, shape.mlp_width, bias=False)
        self.down = nn.Linear(shape.mlp_width, shape.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, T, C] to [B, T, C]."""
        out: Tensor = self.down(F.silu(self.gate(x)) * self.up(x))
        return out


def rotary_table(context: int, head_width: int, theta: float) -> tuple[Tensor, Tensor]:
    """Return cosines and signed sines [context, D] float32 of each position's angles.

    The pair (i, i + D/2) turns by ``position * theta^(-2i/D)``. The first half of the sines is negative, which is the
    sign that :func:`rotate` needs.
    """
    frequencies = theta ** (-torch.arange(0, head_width, 2, dtype=torch.float32) / head_width)
    angles = torch.outer(torch.arange(context, dtype=torch.float32), frequencies)
    return angles.cos().repeat(1, 2), torch.cat((-angles.sin(), angles.sin()), dim=1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate each pair (i, i + D/2) of x [B, heads, T, D] by its position's angle, in Llama's rotate-half layout."""
    swapped = x.roll(x.shape[-1] // 2, dims=-1)
    return torch.addcmul(x * cos, swapped, sin).to(x.dtype)
