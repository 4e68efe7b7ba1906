"""From the tokens that an engine made to what came of a prompt: where it ends, and why."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from clew.engines.base import Completion, GenerationConfig
from clew.errors import UserError
from clew.tasks import Prompt, prompt_ids


def encode_prompts(
    prompts: Sequence[Prompt], settings: GenerationConfig, tokenizer: Any, context: int | None
) -> list[tuple[int, ...]]:
    """Return the token ids of every prompt.

    Args:
        prompts: Texts or conversations.
        settings: How to generate.
        tokenizer: The model's.
        context: The most tokens that the model takes, prompt and completion together; None when it does not say.

    Raises:
        UserError: If a prompt is empty, or does not fit into the context.
    """
    ids = [tuple(prompt_ids(prompt, tokenizer, settings.chat)) for prompt in prompts]
    for index, row in enumerate(ids):
        if not row:
            raise UserError("the prompt is empty", where=f"prompt {index}")
        if context is not None and len(row) + settings.max_new_tokens > context:
            raise UserError(
                f"{len(row)} tokens and max_new_tokens={settings.max_new_tokens} "
                f"do not fit into the model's context of {context} tokens",
                where=f"prompt {index}",
                hint="shorten the prompt or lower generation.max_new_tokens",
            )
    return ids


def end_tokens(tokenizer: Any, named: int | Sequence[int] | None) -> frozenset[int]:
    """Return every token that ends a text: the tokenizer's end and padding, and those that the model names."""
    several = [named] if named is None or isinstance(named, int) else named
    return frozenset(token for token in (tokenizer.eos_token_id, tokenizer.pad_token_id, *several) if token is not None)


def completion_of(
    tokens: Sequence[int], prompt_tokens: int, settings: GenerationConfig, tokenizer: Any, ends: Collection[int]
) -> Completion:
    """Return what a row of generated tokens means.

    Args:
        tokens: What was generated; whatever follows the first end token does not count.
        prompt_tokens: Length of the prompt in tokens.
        settings: How it was generated.
        tokenizer: The model's.
        ends: The tokens that end a text.
    """
    end = next((at for at, token in enumerate(tokens) if token in ends), len(tokens))
    text = tokenizer.decode(tokens[:end], skip_special_tokens=True)
    stops = [at for at in map(text.find, settings.stop) if at >= 0]
    if stops:
        return Completion(text[: min(stops)], tuple(tokens[:end]), prompt_tokens, "stop")
    return Completion(text, tuple(tokens[: end + 1]), prompt_tokens, "eos" if end < len(tokens) else "length")
