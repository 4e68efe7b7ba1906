"""Seeded sampling that does not depend on the batch, as logits processors of Transformers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import LogitsProcessor, LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper

from clew.engines.base import GenerationConfig, row_seed


class GumbelNoise(LogitsProcessor):  # type: ignore[misc]
    """Turns the choice of the most likely token into sampling: the Gumbel-max trick.

    ``argmax(logits + g)`` with standard Gumbel noise ``g`` is a sample of ``softmax(logits)`` (Gumbel 1954; Maddison
    et al. 2014, arXiv:1411.0030). Each row has its own generator, so its noise depends on the seed and its prompt's
    index alone.

    Args:
        seed: Seed of the run.
        indices: Indices of the prompts in the rows.
    """

    def __init__(self, seed: int, indices: Sequence[int]) -> None:
        # Generators stay on the CPU: every device then draws the same noise.
        self._generators = [torch.Generator().manual_seed(row_seed(seed, index)) for index in indices]

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Add noise to scores of shape ``[rows, vocabulary]``."""
        width = scores.shape[-1]
        rows = [torch.empty(width).exponential_(generator=generator) for generator in self._generators]
        noise = -torch.stack(rows).clamp_min(1e-30).log()
        return scores + noise.to(device=scores.device, dtype=scores.dtype)  # type: ignore[return-value]


def sampling_processors(settings: GenerationConfig, seed: int, indices: Sequence[int]) -> LogitsProcessorList:
    """Return the processors after which the largest score is the token to take; none at temperature 0."""
    processors = LogitsProcessorList()
    if settings.temperature == 0:
        return processors
    processors.append(TemperatureLogitsWarper(settings.temperature))
    if settings.top_p < 1:
        processors.append(TopPLogitsWarper(settings.top_p))
    processors.append(GumbelNoise(seed, indices))
    return processors
