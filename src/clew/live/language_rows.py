"""The examples of a language model's training, as they can be looked at one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clew.data.order import Ids
from clew.errors import UserError
from clew.live.language_scores import Tokens
from clew.tasks import Chat, Example, Task, messages_of, prompt_ids
from clew.tasks.labels import label


class ExampleRows:
    """The examples of a task, with the tokens and labels that TRL's preparation gives them.

    Args:
        task: Whose hook ``collate`` has the last word.
        examples: In the order in which they are numbered.
        tokenizer: Of the model.
        chat: Whether prompts go through its chat template.
    """

    def __init__(self, task: Task, examples: Sequence[Example], tokenizer: Any, chat: Chat) -> None:
        self._task = task
        self._examples = examples
        self._tokenizer = tokenizer
        self._chat = chat

    def __len__(self) -> int:
        return len(self._examples)

    def tokens(self, ids: Ids) -> list[Tokens]:
        """Return the examples of these numbers as they are trained on."""
        chosen = [self._examples[int(one)] for one in ids]
        if lacking := next((one for one in chosen if one.completion is None), None):
            raise UserError(
                "samples are scored by their reference completions, and not every prompt has one", where=lacking.id
            )
        return [Tokens(one.ids, one.labels) for one in label(chosen, self._tokenizer, self._chat, self._task)]

    def fields(self, ids: Ids) -> list[Mapping[str, Any]]:
        """Return an example's own fields with ``id``, ``prompt``, ``completion``, ``text`` and ``length`` in tokens."""
        return [self._described(self._examples[int(one)]) for one in ids]

    def _described(self, example: Example) -> Mapping[str, Any]:
        prompt = "\n".join(turn["content"] for turn in messages_of(example.prompt))
        answer = example.completion or ""
        length = len(prompt_ids(example.prompt, self._tokenizer, self._chat))
        length += len(self._tokenizer(answer, add_special_tokens=False)["input_ids"])
        known = {"id": example.id, "text": prompt + answer, "length": length, "prompt": prompt}
        return {**example.fields, **known, "completion": answer}


class PreparedRows:
    """The rows of a data set that a trainer has prepared: ``input_ids``, and ``labels`` where not all are trained on.

    Args:
        data: With a length, and rows by their numbers.
        tokenizer: Of the model.
    """

    def __init__(self, data: Any, tokenizer: Any) -> None:
        self._data = data
        self._tokenizer = tokenizer

    def __len__(self) -> int:
        return len(self._data)

    def tokens(self, ids: Ids) -> list[Tokens]:
        """Return the rows of these numbers."""
        rows = [self._data[int(one)] for one in ids]
        if any("input_ids" not in row for row in rows):
            raise UserError("the samples of this trainer have no input_ids, so there is nothing to score")
        return [Tokens(list(row["input_ids"]), list(row.get("labels", row["input_ids"]))) for row in rows]

    def fields(self, ids: Ids) -> list[Mapping[str, Any]]:
        """Return the texts and numbers of each row, with ``text`` and ``length``."""
        return [self._described(self._data[int(one)]) for one in ids]

    def _described(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        plain = {name: value for name, value in row.items() if isinstance(value, str | int | float)}
        tokens = row.get("input_ids", ())
        text = str(self._tokenizer.decode(tokens)) if len(tokens) else str(plain.get("text", plain.get("prompt", "")))
        return {**plain, "text": text, "length": len(tokens) or len(text)}
