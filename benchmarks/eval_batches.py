"""Evaluation of ragged prompts: planned batches against fixed batches of 8 in the order of the file.

Both go through the same `complete`, so only the plan differs. The model is random and never says its end token: every
completion is as long as it may be. Where answers end early at different lengths, a batch waits for its longest, and
larger batches wait longer: with 64 tokens at most and 13 to 33 on average, the ratio was 1.9 to 2.2 by hand.
"""

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

PROMPTS, FIXED, CONTEXT = 256, 8, 1024


def main() -> None:
    """Print the ratio of problems a second, for short answers and for longer ones."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    tokenizer = ByteTokenizer().build([])
    model = as_huggingface(Decoder(ModelConfig(depth=2), vocab_size(tokenizer), CONTEXT), tokenizer).eval()
    engine = TransformersEngine(model, tokenizer)
    lengths = random.Random(0)
    # A few long prompts among many short ones, as real data sets have them.
    prompts = ["x" * int(min(900, 8 + lengths.expovariate(1 / 60))) for _ in range(PROMPTS)]
    for new_tokens in (8, 64):
        ratio = measure(engine, prompts, GenerationConfig(max_new_tokens=new_tokens, batch_tokens=8192))
        what = f"eval of ragged prompts, {new_tokens} new tokens, against fixed batches in file order"
        Figure(what, ratio, "x", 2.0, True).print()


def measure(engine: TransformersEngine, prompts: list[str], settings: GenerationConfig) -> float:
    """Return how many times as fast the engine's own plan is."""
    plan = engine.plan(prompts, settings)
    encoded = {index: ids for batch in plan for index, ids in zip(batch.indices, batch.prompts, strict=True)}
    fixed_plan = [
        Batch(tuple(indices), tuple(encoded[index] for index in indices))
        for indices in (range(start, start + FIXED) for start in range(0, PROMPTS, FIXED))
    ]

    def run(batches: list[Batch]) -> None:
        for batch in batches:
            engine.complete(batch, settings)

    planned, fixed = alternate(3, lambda: run(plan), lambda: run(fixed_plan))
    return fixed / planned


if __name__ == "__main__":
    main()
