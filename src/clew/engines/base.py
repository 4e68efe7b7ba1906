"""What every engine does: prompts in, completions out, in batches between which a job may stop."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from clew.config import config
from clew.models.quantization import Quantization
from clew.tasks import Prompt

STEP_COST = 32
"""About how many tokens of a prompt are read in the time of one step of generation: 25 to 50 were seen on a CPU."""


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
    """Memory budget of a batch: number of prompts times (the longest of them + max_new_tokens). vLLM has its own."""


@dataclass(frozen=True)
class EngineOptions:
    """How a model is loaded for generation."""

    dtype: str = "float32"
    """The type of the weights."""
    device: str = "cpu"
    """Where they go: ``cpu``, ``cuda`` or ``mps``."""
    quantize: Quantization = "none"
    """Whether the weights of linear layers are kept in 8 or 4 bits."""
    seed: int = 0
    """Seed of sampling."""


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


def row_seed(seed: int, index: int) -> int:
    """Return the seed of one prompt's sampling, 63 bits; only the run's seed and the prompt's index decide it."""
    return int.from_bytes(hashlib.sha256(f"{seed} {index}".encode()).digest()[:8]) >> 1


def plan_batches(lengths: Sequence[int], new_tokens: int, budget: int) -> list[list[int]]:
    """Group prompts of similar length under a token budget, at the least cost.

    The cost of a batch is the tokens of its prompts, padding included, and ``STEP_COST`` for each of its steps. The
    rows' own work in the steps is the same in every plan.

    Args:
        lengths: Tokens of every prompt.
        new_tokens: Tokens that are generated for each.
        budget: The most that (prompts in a batch) times (longest prompt + new tokens) may be. A prompt that exceeds
            it alone has a batch of its own.

    Returns:
        Lists of indices, the longest prompts first, so that memory runs out at once or never.
    """
    import numpy as np

    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    # The first of a batch is its longest, so it sets the width of all rows.
    widths = np.array([lengths[index] for index in order], dtype=np.int64)
    # For the first so many prompts: the least cost, and where the last batch begins then.
    least, begins, low = np.zeros(len(order) + 1, dtype=np.int64), [0] * (len(order) + 1), 0
    for end in range(1, len(order) + 1):
        while end - low > 1 and (end - low) * (widths[low] + new_tokens) > budget:
            low += 1
        costs = least[low:end] + widths[low:end] * np.arange(end - low, 0, -1)
        chosen = int(costs.argmin())
        begins[end], least[end] = low + chosen, costs[chosen] + STEP_COST * new_tokens
    batches: list[list[int]] = []
    end = len(order)
    while end:
        batches.append(order[begins[end] : end])
        end = begins[end]
    return batches[::-1]
