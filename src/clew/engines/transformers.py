"""Generation with Hugging Face Transformers, in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import transformers
from transformers import StoppingCriteria, StoppingCriteriaList

from clew.engines.base import Batch, Completion, Engine, EngineOptions, GenerationConfig, plan_batches
from clew.engines.completions import completion_of, encode_prompts, end_tokens
from clew.engines.sampling import sampling_processors
from clew.models.loading import load_model, load_tokenizer
from clew.models.source import ModelSource
from clew.tasks import Prompt


def load_engine(source: ModelSource, options: EngineOptions) -> TransformersEngine:
    """Load a model of any kind that :func:`clew.models.loading.load_model` takes."""
    model = load_model(source, options.dtype, options.device, quantize=options.quantize)
    return TransformersEngine(model, load_tokenizer(source), seed=options.seed)


class TransformersEngine(Engine):
    """Batched generation: prompts of similar length together, padded on the left.

    Args:
        model: A causal language model; it is put into evaluation mode while it generates.
        tokenizer: Its tokenizer.
        seed: Seed of sampling.
    """

    def __init__(self, model: Any, tokenizer: Any, *, seed: int = 0) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.seed = seed
        self._ends = end_tokens(tokenizer, model.generation_config.eos_token_id)
        # Padding is masked, so any token does where the tokenizer has none for it.
        self._pad: int = next(iter(sorted(self._ends)), 0) if tokenizer.pad_token_id is None else tokenizer.pad_token_id

    def plan(self, prompts: Sequence[Prompt], settings: GenerationConfig) -> list[Batch]:
        """Return batches of prompts of similar length, the longest first; see :meth:`Engine.plan`."""
        context = getattr(self.model.config, "max_position_embeddings", None)
        ids = encode_prompts(prompts, settings, self.tokenizer, context)
        groups = plan_batches([len(row) for row in ids], settings.max_new_tokens, settings.batch_tokens)
        return [Batch(tuple(group), tuple(ids[index] for index in group)) for group in groups]

    @torch.no_grad()
    def complete(self, batch: Batch, settings: GenerationConfig) -> list[Completion]:
        """Return the completions of one batch, in its order."""
        width = max(map(len, batch.prompts))
        input_ids = torch.tensor([[self._pad] * (width - len(row)) + list(row) for row in batch.prompts])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in batch.prompts])
        with _plain(self.model, self._generation(settings)):
            output = self.model.generate(
                input_ids=input_ids.to(self.model.device),
                attention_mask=mask.to(self.model.device),
                logits_processor=sampling_processors(settings, self.seed, batch.indices),
                stopping_criteria=self._stopping(settings, width),
            )
        made = output[:, width:].tolist()
        return [
            completion_of(tokens, len(row), settings, self.tokenizer, self._ends)
            for row, tokens in zip(batch.prompts, made, strict=True)
        ]

    def _generation(self, settings: GenerationConfig) -> transformers.GenerationConfig:
        return transformers.GenerationConfig(
            max_new_tokens=settings.max_new_tokens,
            do_sample=False,
            eos_token_id=sorted(self._ends) or None,
            pad_token_id=self._pad,
        )

    def _stopping(self, settings: GenerationConfig, width: int) -> StoppingCriteriaList:
        return StoppingCriteriaList([_StopTexts(self.tokenizer, settings.stop, width)] if settings.stop else [])


class _StopTexts(StoppingCriteria):  # type: ignore[misc]
    """Ends a row once its completion contains one of the texts.

    It decodes what the row has generated: a text may begin and end in the middle of a token.
    """

    def __init__(self, tokenizer: Any, texts: Sequence[str], width: int) -> None:
        self._tokenizer, self._texts, self._width = tokenizer, texts, width

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **kwargs: Any) -> torch.BoolTensor:
        decoded = self._tokenizer.batch_decode(input_ids[:, self._width :], skip_special_tokens=True)
        ended = [any(stop in text for stop in self._texts) for text in decoded]
        return torch.tensor(ended, dtype=torch.bool, device=input_ids.device)  # type: ignore[return-value]


@contextmanager
def _plain(model: Any, settings: transformers.GenerationConfig) -> Iterator[None]:
    """Let the model generate by these settings alone.

    Transformers fills what a request leaves open from the model's own generation config, so that a repetition penalty
    that came with the weights would change greedy results without a word.
    """
    # A wrapper such as PEFT's hands its own config down to the model inside; both get theirs back.
    inner = [module for module in model.modules() if isinstance(module, transformers.GenerationMixin)]
    owners = [(owner, owner.generation_config) for owner in [model, *inner]]
    training = model.training
    for owner, _ in owners:
        owner.generation_config = settings
    model.eval()
    try:
        yield
    finally:
        model.train(training)
        for owner, own in owners:
            owner.generation_config = own
