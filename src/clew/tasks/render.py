"""From a prompt to the text and the token ids that a model sees.

The one place that decides about chat templates and special tokens, so that training, reinforcement learning and
evaluation cannot disagree about them.
"""

from __future__ import annotations

from typing import Any, Literal

from clew.errors import DataError, UserError
from clew.tasks.base import Example, Message, Prompt
from clew.tasks.turns import render_turns

Chat = Literal["auto", "always", "never"]


def messages_of(prompt: Prompt) -> list[Message]:
    """Return a prompt as messages; a text becomes the only turn of the user."""
    return [Message(role="user", content=prompt)] if isinstance(prompt, str) else list(prompt)


def uses_chat(tokenizer: Any, chat: Chat = "auto") -> bool:
    """Return whether prompts go through the tokenizer's chat template.

    Args:
        tokenizer: A Hugging Face tokenizer.
        chat: ``auto`` does when there is a template.

    Raises:
        UserError: If ``always`` is asked of a tokenizer without a template.
    """
    template = bool(tokenizer.chat_template)
    if chat == "always" and not template:
        raise UserError(
            "chat is 'always', but the tokenizer has no chat template", hint="use chat: auto or chat: never"
        )
    return template and chat != "never"


def render_prompt(prompt: Prompt, tokenizer: Any, chat: Chat = "auto") -> str:
    """Return the text that the model continues.

    Raises:
        UserError: If the prompt is a conversation and no chat template is used.
        DataError: If the template refuses the conversation, or does not show every turn of it.
    """
    if uses_chat(tokenizer, chat):
        return render_turns(messages_of(prompt), tokenizer, add_generation_prompt=True)
    if isinstance(prompt, str):
        return prompt
    reason = "chat is 'never'" if tokenizer.chat_template else "the tokenizer has no chat template"
    raise UserError(f"the prompts are conversations, but {reason}", hint="use prompts that are plain text")


def prompt_ids(prompt: Prompt, tokenizer: Any, chat: Chat = "auto") -> list[int]:
    """Return the token ids that the model continues.

    A chat template writes its own special tokens, so the tokenizer must not add them once more. For plain text the
    tokenizer may begin the sequence, but not end it: nobody continues a text after its end.
    """
    text = render_prompt(prompt, tokenizer, chat)
    ids: list[int] = tokenizer(text, add_special_tokens=not uses_chat(tokenizer, chat))["input_ids"]
    while len(ids) > 1 and ids[-1] == tokenizer.eos_token_id and not text.endswith(tokenizer.eos_token):
        ids = ids[:-1]
    return ids


def render_example(example: Example, tokenizer: Any, chat: Chat = "auto") -> dict[str, Any]:
    """Return ``{"prompt", "completion"}`` for supervised fine-tuning: two texts, or two lists of messages.

    Raises:
        DataError: If the example has no completion, or the chat template drops, merges or changes a turn of it.
        UserError: As :func:`render_prompt`.
    """
    if example.completion is None:
        raise DataError("this example has no completion to learn from", where=example.id)
    if not uses_chat(tokenizer, chat):
        return {"prompt": render_prompt(example.prompt, tokenizer, chat), "completion": example.completion}
    prompt, answer = messages_of(example.prompt), Message(role="assistant", content=example.completion)
    try:
        render_turns([*prompt, answer], tokenizer)
    except DataError as error:
        raise DataError(error.what, where=error.where or example.id, hint=error.hint) from None
    return {"prompt": prompt, "completion": [answer]}
