"""Evaluation of ragged prompts: length-sorted dynamic batches against fixed batches in the order of the file."""

from __future__ import annotations

import random

import torch
from common import Figure, alternate

from clew.engines.base import Batch, GenerationConfig
from clew.engines.transformers import TransformersEngine
from clew.models.config import ModelConfig
from clew.models.decoder import Decoder
from clew.models.exchange import as_huggingface
from clew.models.tokenizers import ByteTokenizer, vocab_size

PROMPTS, FIXED, NEW_TOKENS, CONTEXT = 256, 8, 8, 1024


def main() -> None:
    """Print the ratio of problems a second."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    tokenizer = ByteTokenizer().build([])
    model = as_huggingface(Decoder(ModelConfig(depth=2), vocab_size(tokenizer), CONTEXT), tokenizer).eval()
    engine = TransformersEngine(model, tokenizer)
    lengths = random.Random(0)
    # A few long prompts among many short ones, as real data sets have them.
    prompts = ["x" * int(min(900, 8 + lengths.expovariate(1 / 60))) for _ in range(PROMPTS)]
    settings = GenerationConfig(max_new_tokens=NEW_TOKENS, batch_tokens=8192)
    sorted_plan = engine.plan(prompts, settings)
    encoded = {index: ids for batch in sorted_plan for index, ids in zip(batch.indices, batch.prompts, strict=True)}
    fixed_plan = [
        Batch(tuple(indices), tuple(encoded[index] for index in indices))
        for indices in (range(start, start + FIXED) for start in range(0, PROMPTS, FIXED))
    ]

    def run(plan: list[Batch]) -> None:
        for batch in plan:
            engine.complete(batch, settings)

    dynamic, fixed = alternate(3, lambda: run(sorted_plan), lambda: run(fixed_plan))
    Figure("eval of ragged prompts, against fixed batches in file order", fixed / dynamic, "x", 2.0, True).print()


if __name__ == "__main__":
    main()
