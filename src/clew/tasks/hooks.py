"""What a task may say besides its parts: hooks that change nothing unless a task defines them.

A hook is a function of its arguments and of the task's options. It keeps no state, so that a resumed run goes on
exactly as the interrupted one would have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clew.errors import DataError
    from clew.tasks.base import Example

Features = Sequence[dict[str, Any]]
"""The examples of a batch: ``input_ids``, ``labels`` and whatever the trainer's preparation added, as lists."""


@dataclass(frozen=True)
class GroupReward:
    """A named, weighted score of the completions of one prompt that looks at all of them together."""

    name: str
    score: Callable[[Example, Sequence[str]], Sequence[float | None]]
    """``score(example, completions)``: one value for each completion, in their order; None where it does not apply."""
    weight: float = 1.0


@dataclass(frozen=True)
class Rollout:
    """One completion, and what it was worth."""

    example: Example
    completion: str
    rewards: Mapping[str, float | None]
    """Every reward by its name; None where it did not apply."""
    reward: float | None
    """Their weighted sum; None when none of them applied, and then nothing is learned from it."""


class Hooks:
    """The hooks of a task; what stands here is what happens without them."""

    def skipped(self, part: str, split: str) -> Sequence[DataError]:
        """Return the rows that a part leaves out because they are bad; a job puts their number into its notes.

        Args:
            part: ``documents``, ``examples``, ``prompts`` or ``problems``.
            split: Which split.
        """
        return ()

    def keeps_order(self) -> bool:
        """Return whether the order of the training examples means something; then a trainer must not shuffle them."""
        return False

    def collate(self, features: Features, default: Callable[[Features], dict[str, Any]]) -> dict[str, Any]:
        """Make a batch of tokenized examples, in supervised fine-tuning and its validation.

        Args:
            features: The examples of one forward pass.
            default: Pads them into tensors ``input_ids``, ``attention_mask`` and ``labels`` of shape [B, T]; labels
                that are -100 are not trained.
        """
        return default(features)

    def group_rewards(self) -> Sequence[GroupReward]:
        """Return rewards that compare the completions of one prompt with each other, such as one for variety."""
        return ()

    def reward_weights(self, step: int, total: int) -> Mapping[str, float]:
        """Return the weights of rewards in a step, by name: a curriculum; those not named keep their own.

        Args:
            step: The step that is about to be made, from 1.
            total: The last step.
        """
        return {}

    def on_rollouts(self, step: int, rollouts: Sequence[Rollout]) -> Mapping[str, float]:
        """Look at the scored completions of a step; what is returned is logged as metrics ``task/NAME``."""
        return {}
