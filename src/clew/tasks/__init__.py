"""Tasks: the domain of a run. Data, prompts, rewards, metrics; no infrastructure."""

from clew.tasks.base import (
    SPLITS,
    Example,
    Message,
    MissingPart,
    MissingSplit,
    Prompt,
    Reward,
    Task,
    has_part,
    registry,
    require_parts,
)
from clew.tasks.hooks import GroupReward, Hooks, Rollout
from clew.tasks.render import Chat, messages_of, prompt_ids, render_example, render_prompt, uses_chat

__all__ = [
    "SPLITS",
    "Chat",
    "Example",
    "GroupReward",
    "Hooks",
    "Message",
    "MissingPart",
    "MissingSplit",
    "Prompt",
    "Reward",
    "Rollout",
    "Task",
    "has_part",
    "messages_of",
    "prompt_ids",
    "registry",
    "render_example",
    "render_prompt",
    "require_parts",
    "uses_chat",
]
