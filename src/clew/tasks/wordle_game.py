"""The rules of Wordle and a player that knows them: marks, words that are still possible, the next guess."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from clew.errors import DataError, UserError

LENGTH = 5
GREEN, YELLOW, GREY = "+", "~", "-"

# Looking ahead costs (guesses × possible words); only this many guesses, the best by their letters, are looked at.
_SHORTLIST = 10


@dataclass(frozen=True)
class Clue:
    """A guess and its marks, one a letter: ``+`` in place, ``~`` elsewhere in the word, ``-`` not (again) in it."""

    guess: str
    marks: str

    def allows(self, word: str) -> bool:
        """Return whether a word could be the secret, as far as this clue says."""
        return marks_of(self.guess, word) == self.marks


def marks_of(guess: str, secret: str) -> str:
    """Return the marks of a guess.

    A letter of the secret is used up by one letter of the guess: first by those in place, then from left to right. So
    of two equal letters in a guess only one is marked when the secret has it once.
    """
    assert len(guess) == len(secret) == LENGTH, (guess, secret)
    left = [theirs for ours, theirs in zip(guess, secret, strict=True) if ours != theirs]
    marks = ""
    for ours, theirs in zip(guess, secret, strict=True):
        if ours == theirs:
            marks += GREEN
        elif ours in left:
            left.remove(ours)
            marks += YELLOW
        else:
            marks += GREY
    return marks


def is_word_shaped(text: str) -> bool:
    """Return whether a text is five letters from a to z and nothing else."""
    return len(text) == LENGTH and text.isascii() and text.isalpha() and text.islower()


def read_words(path: Path | None = None) -> tuple[str, ...]:
    """Return the words of the game in alphabetical order, each once.

    Args:
        path: A file with a word a line; None takes the list that ships, common English words.

    Raises:
        DataError: If a line is no word of five letters, or there are fewer than two words.
        UserError: If the file cannot be read.
    """
    name = path.name if path else "words.txt"
    try:
        text = path.read_text("utf-8") if path else (files("clew.tasks") / name).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the words: {error}", where=name) from None
    words = set()
    for number, line in enumerate(text.splitlines(), start=1):
        word = line.strip().casefold()
        if word and not is_word_shaped(word):
            raise DataError(f"{line.strip()!r} is not a word of {LENGTH} letters from a to z", where=f"{name}:{number}")
        words.add(word)
    words.discard("")
    if len(words) < 2:
        raise DataError("a game needs at least two words", where=name)
    return tuple(sorted(words))


class Solver:
    """A player that only guesses words that can still be the secret, and of those one that tells the most.

    Args:
        words: The words of the game.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self._words = words
        self._after_first: dict[str, dict[str, list[str]]] = {}

    def possible(self, clues: Sequence[Clue]) -> list[str]:
        """Return the words that agree with all clues, in alphabetical order."""
        if not clues:
            return list(self._words)
        first, *rest = clues
        # Games share their opening words, so what each leaves is sorted out once.
        if first.guess not in self._after_first:
            self._after_first[first.guess] = _groups(first.guess, self._words)
        left = self._after_first[first.guess].get(first.marks, [])
        return [word for word in left if all(clue.allows(word) for clue in rest)]

    def guess(self, clues: Sequence[Clue]) -> str | None:
        """Return the next guess: the one that leaves the fewest possible words on average; None if nothing is possible.

        With equal chances for each possible word, a guess that splits ``n`` of them into groups of sizes ``g`` leaves
        ``sum(g²) / n`` on average.
        """
        possible = self.possible(clues)
        if not possible:
            return None
        letters = Counter((place, letter) for word in possible for place, letter in enumerate(word))
        present = Counter(letter for word in possible for letter in set(word))

        def common(word: str) -> int:
            return sum(letters[place, letter] for place, letter in enumerate(word)) + sum(
                present[letter] for letter in set(word)
            )

        def left(word: str) -> int:
            return sum(len(group) ** 2 for group in _groups(word, possible).values())

        shortlist = sorted(possible, key=lambda word: (-common(word), word))[:_SHORTLIST]
        return min(shortlist, key=lambda word: (left(word), word))


def _groups(guess: str, words: Iterable[str]) -> dict[str, list[str]]:
    """Sort words by the marks that a guess would get if they were the secret."""
    groups: dict[str, list[str]] = {}
    for word in words:
        groups.setdefault(marks_of(guess, word), []).append(word)
    return groups
