"""Wordle, one guess at a time: from the clues so far to the next guess."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from clew.config import InputPath, config
from clew.errors import DataError
from clew.tasks.base import Example, Reward, Task
from clew.tasks.splits import check_split, content_hash, split_of
from clew.tasks.wordle_game import GREEN, LENGTH, YELLOW, Clue, Solver, is_word_shaped, marks_of, read_words

Form = Literal["turn", "word"]

_FIVE_LETTERS = re.compile(rf"(?<![a-z])[a-z]{{{LENGTH}}}(?![a-z])")
_MAX_CLUES = 5
# Games are drawn at random; a small word list repeats itself long before this many draws for one game.
_DRAWS = 50

_RULES = (
    "Guess a secret English word of five letters. After each letter of a guess stands its mark: "
    "+ it is in the right place, ~ it is elsewhere in the word, - it is not in the word (again).\n"
)


@config
class WordleTask(Task):
    """The next guess in a game of Wordle, from the clues so far; games are made, not read.

    Secrets are held out by a hash of the word, whatever the seed and the sizes. The opening word of a game comes from
    the same split as its secret, so no prompt occurs in two splits. Guesses may be any word of the list.
    """

    words: InputPath | None = None
    """A file of the game's words, one a line; null takes the list of common English words that ships."""
    min_clues: Annotated[int, Field(ge=1, le=_MAX_CLUES)] = 1
    """The fewest guesses that have been made before."""
    max_clues: Annotated[int, Field(ge=1, le=_MAX_CLUES)] = 4
    """The most guesses that have been made before."""
    prompt_style: Literal["short", "question"] = "short"
    """How a game is shown: `c-r~a+n-e- s+...=` for small models, or rules and clues in English."""
    document_forms: Annotated[tuple[Form, ...], Field(min_length=1)] = ("turn", "word")
    """The documents for pretraining: games with the solver's guess, and every word of the list by itself."""
    train_size: Annotated[int, Field(ge=1)] = 2000
    """The number of training games; fewer where the words allow no more."""
    validation_size: Annotated[int, Field(ge=1)] = 200
    """The number of validation games."""
    test_size: Annotated[int, Field(ge=1)] = 200
    """The number of test games."""
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """The share of secrets that are never trained on: one half for validation, one half for testing."""
    answer: Literal["whole", "last_word"] = "whole"
    """What of a completion is the guess: all of it, or its last word of five letters (for models that talk)."""
    format_weight: Annotated[float, Field(ge=0)] = 0.1
    """The weight of the reward `format`: five letters and nothing else."""
    valid_weight: Annotated[float, Field(ge=0)] = 0.3
    """The weight of the reward `valid`: a word of the list."""
    consistent_weight: Annotated[float, Field(ge=0)] = 1.0
    """The weight of the reward `consistent`: the share of marks in the clues with which the guess agrees."""
    possible_weight: Annotated[float, Field(ge=0)] = 0.0
    """The weight of the reward `possible`: a word of the list that agrees with every mark, all or nothing."""
    green_weight: Annotated[float, Field(ge=0)] = 0.5
    """The weight of the reward `green`: the share of letters in the right place."""
    yellow_weight: Annotated[float, Field(ge=0)] = 0.25
    """The weight of the reward `yellow`: the share of letters that are elsewhere in the secret."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the games."""

    @model_validator(mode="after")
    def _clues_in_order(self) -> WordleTask:
        if self.min_clues > self.max_clues:
            raise ValueError("min_clues and max_clues: the fewest clues are more than the most")
        return self

    def documents(self, split: str) -> Iterable[str]:
        """Yield the games of a split with the solver's guess; among those for training, all words as well.

        The words of the game are public; which of them are secrets of the other splits is not said.
        """
        if "turn" in self.document_forms or split != "train":
            for example in self.examples(split):
                yield f"{example.prompt}{example.completion}"
        if "word" in self.document_forms and split == "train":
            yield from self._vocabulary()

    def examples(self, split: str) -> Sequence[Example]:
        """Return the games of a split with the solver's guess; ids such as ``slate:crane,about`` begin with the secret.

        Raises:
            DataError: If the split has fewer than two words, a secret and an opening.
        """
        words = self._vocabulary()
        solver = Solver(words)
        return [
            Example(
                id=f"{secret}:{','.join(clue.guess for clue in clues)}",
                prompt=self._prompt(clues),
                completion=solver.guess(clues),
                fields={"secret": secret, "clues": [[clue.guess, clue.marks] for clue in clues]},
            )
            for secret, clues in self._games(split, words)
        ]

    def rewards(self) -> Sequence[Reward]:
        """Return ``format``, ``valid``, ``consistent``, ``possible``, ``green``, ``yellow``; 0 without five letters."""
        words = frozenset(self._vocabulary())

        def valid(example: Example, completion: str) -> float:
            return float(self._guess(completion) in words)

        def possible(example: Example, completion: str) -> float:
            return float(valid(example, completion) == 1.0 and self._consistent(example, completion) == 1.0)

        return [
            Reward("format", lambda example, completion: float(bool(self._guess(completion))), self.format_weight),
            Reward("valid", valid, self.valid_weight),
            Reward("consistent", self._consistent, self.consistent_weight),
            Reward("possible", possible, self.possible_weight),
            Reward("green", lambda example, completion: self._share(GREEN, example, completion), self.green_weight),
            Reward("yellow", lambda example, completion: self._share(YELLOW, example, completion), self.yellow_weight),
        ]

    def metrics(self, example: Example, completion: str) -> Mapping[str, float]:
        """Return the rewards and ``solved``."""
        scores = {name: float(value) for name, value in super().metrics(example, completion).items()}
        scores["solved"] = float(self._guess(completion) == example.fields["secret"])
        return scores

    def baseline(self, split: str) -> Mapping[str, float]:
        """Return the mean metrics of the solver on the games of a split: what a perfect memory of the rules scores."""
        sums: defaultdict[str, float] = defaultdict(float)
        examples = self.examples(split)
        for example in examples:
            for name, value in self.metrics(example, str(example.completion)).items():
                sums[name] += value
        return {name: value / len(examples) for name, value in sums.items()}

    def _vocabulary(self) -> tuple[str, ...]:
        return read_words(Path(self.words) if self.words else None)

    def _prompt(self, clues: Sequence[Clue]) -> str:
        shown = ["".join(map("".join, zip(clue.guess, clue.marks, strict=True))) for clue in clues]
        if self.prompt_style == "short":
            return f"{' '.join(shown)}="
        return f"{_RULES}{chr(10).join(shown)}\nWhat is your next guess? Answer with the word only."

    def _games(self, split: str, words: Sequence[str]) -> Iterator[tuple[str, list[Clue]]]:
        """Yield secrets with the clues of random guesses, each game once; only the seed decides about them."""
        sizes = {"train": self.train_size, "validation": self.validation_size, "test": self.test_size}
        wanted = sizes[check_split(split)]
        half = self.held_out / 2
        ours = [word for word in words if split_of(word, validation=half, test=half) == split]
        if len(ours) < 2:
            raise DataError(
                f"{len(words)} words leave {len(ours)} for the split {split!r}, which needs a secret and an opening",
                where="wordle",
                hint="give more words, or raise held_out" if split != "train" else "give more words, or lower held_out",
            )
        generator = random.Random(content_hash(f"wordle {self.seed} {split}"))
        seen: set[tuple[str, ...]] = set()
        for _ in range(wanted * _DRAWS):
            if len(seen) == wanted:
                return
            secret, opening = generator.sample(ours, 2)
            others = [opening, *generator.sample(words, min(_MAX_CLUES, len(words)))]
            guesses = [word for word in dict.fromkeys(others) if word != secret]
            guesses = guesses[: generator.randint(self.min_clues, self.max_clues)]
            if len(guesses) >= self.min_clues and (secret, *guesses) not in seen:
                seen.add((secret, *guesses))
                yield secret, [Clue(guess, marks_of(guess, secret)) for guess in guesses]

    def _guess(self, completion: str) -> str:
        """Return the guessed word; empty for what is not five letters."""
        text = completion.strip().casefold()
        if self.answer == "last_word":
            found: list[str] = _FIVE_LETTERS.findall(text)
            return found[-1] if found else ""
        return text if is_word_shaped(text) else ""

    def _consistent(self, example: Example, completion: str) -> float:
        """The share of marks that would be the same if the guess were the secret.

        Counting whole clues instead tells a model that has not understood the game nearly nothing: most guesses get 0.
        """
        guess = self._guess(completion)
        if not guess:
            return 0.0
        clues = [Clue(*clue) for clue in example.fields["clues"]]
        agree = [
            ours == theirs
            for clue in clues
            for ours, theirs in zip(marks_of(clue.guess, guess), clue.marks, strict=True)
        ]
        return sum(agree) / len(agree)

    def _share(self, mark: str, example: Example, completion: str) -> float:
        guess = self._guess(completion)
        return marks_of(guess, example.fields["secret"]).count(mark) / LENGTH if guess else 0.0
