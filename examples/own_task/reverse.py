"""A task of one's own: spell a word backwards. In a config: `task: {type: reverse.py:Reverse, words: words.jsonl}`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from clew.config import InputPath, config
from clew.tasks import Example, Reward, Task


@config
class Reverse(Task):
    """Words, one of five of them for testing."""

    words: InputPath
    """A JSONL file with rows `{"word": ...}`."""

    def examples(self, split: str) -> Sequence[Example]:
        rows = [json.loads(line) for line in Path(self.words).read_text(encoding="utf-8").splitlines()]
        words = [row["word"] for number, row in enumerate(rows) if (number % 5 == 4) == (split == "test")]
        return [Example(id=word, prompt=f"Spell {word} backwards.", completion=word[::-1]) for word in words]

    def rewards(self) -> Sequence[Reward]:
        return [Reward("exact", exact), Reward("letters", right_letters, weight=0.5)]


def exact(example: Example, completion: str) -> float:
    return float(completion.strip() == example.completion)


def right_letters(example: Example, completion: str) -> float:
    """The share of places that hold the right letter: some credit on the way to all of it."""
    wanted, made = example.completion or "", completion.strip()
    return sum(a == b for a, b in zip(wanted, made, strict=False)) / max(len(wanted), len(made))
