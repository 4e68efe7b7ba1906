"""What every engine does: prompts in, completions out, in batches between which a job may stop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from clew.config import config
from clew.tasks import Prompt


@config
class GenerationConfig:
    """How completions are made."""

    max_new_tokens: Annotated[int, Field(ge=1)] = 64
    """The longest completion, in tokens."""
    temperature: Annotated[float, Field(ge=0)] = 0.0
    """0 takes the most likely token each time; above, tokens are sampled."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Sample only among the most likely tokens that together have this probability."""
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Texts at which a completion ends; they are not part of it."""
    chat: Literal["auto", "always", "never"] = "auto"
    """Whether prompts go through the chat template; auto does when the tokenizer has one."""
    batch_tokens: Annotated[int, Field(ge=1)] = 4096
    """Memory budget of a batch: its number of prompts times (the longest of them + max_new_tokens)."""


@dataclass(frozen=True)
class Completion:
    """What an engine made of one prompt."""

    text: str
    """The completion, without special tokens and stop texts."""
    tokens: tuple[int, ...]
    """All tokens that were generated, including the one that ended it."""
    prompt_tokens: int
    """Length of the prompt in tokens."""
    finish: Literal["eos", "stop", "length"]
    """Why it ended: the model said so, a stop text came, or it was long enough."""


@dataclass(frozen=True)
class Batch:
    """Prompts that are completed together."""

    indices: tuple[int, ...]
    """Their places among all prompts."""
    prompts: tuple[tuple[int, ...], ...]
    """Their token ids."""


class Engine(ABC):
    """Generates text.

    A completion depends on the model, the settings, the seed, the prompt and its index; never on what else is in its
    batch (up to the rounding of the arithmetic in use). So a job may stop after any batch of a plan and go on later.
    """

    @abstractmethod
    def plan(self, prompts: Sequence[Prompt], settings: GenerationConfig) -> list[Batch]:
        """Cut prompts into batches; the same prompts and settings give the same plan.

        Args:
            prompts: Texts or conversations.
            settings: How to generate.

        Raises:
            UserError: If a prompt does not fit into the model's context; nothing was generated then.
        """

    @abstractmethod
    def complete(self, batch: Batch, settings: GenerationConfig) -> list[Completion]:
        """Return the completions of one batch, in its order."""

    def generate(self, prompts: Sequence[Prompt], settings: GenerationConfig) -> list[Completion]:
        """Return one completion for each prompt, in the order of the prompts."""
        found: dict[int, Completion] = {}
        for batch in self.plan(prompts, settings):
            found |= zip(batch.indices, self.complete(batch, settings), strict=True)
        return [found[index] for index in range(len(prompts))]


def plan_batches(lengths: Sequence[int], new_tokens: int, budget: int) -> list[list[int]]:
    """Group prompts of similar length under a token budget.

    Args:
        lengths: Tokens of every prompt.
        new_tokens: Tokens that are generated for each.
        budget: The most that (prompts in a batch) times (longest prompt + new tokens) may be. A prompt that exceeds
            it alone has a batch of its own.

    Returns:
        Lists of indices, the longest prompts first, so that memory runs out at once or never.
    """
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    batches: list[list[int]] = []
    for index in order:
        # The first of a batch is its longest, so it sets the width of all rows.
        if batches and (len(batches[-1]) + 1) * (lengths[batches[-1][0]] + new_tokens) <= budget:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches
