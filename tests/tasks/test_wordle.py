from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from clew.errors import DataError, UserError
from clew.tasks import SPLITS, Example
from clew.tasks.wordle import WordleTask
from clew.tasks.wordle_game import Clue, Solver, is_word_shaped, marks_of, read_words

FEW_LETTERS = st.text("abc", min_size=5, max_size=5)  # few letters: many repeat
SMALL = {"train_size": 60, "validation_size": 20, "test_size": 20}


def slow_marks(guess, secret):
    """The rules as told at a table: cross out the letters of the secret, first those in place."""
    marks, crossed = ["-"] * 5, [False] * 5
    for place in range(5):
        if guess[place] == secret[place]:
            marks[place], crossed[place] = "+", True
    for place in range(5):
        if marks[place] == "-":
            for other in range(5):
                if not crossed[other] and secret[other] == guess[place]:
                    marks[place], crossed[other] = "~", True
                    break
    return "".join(marks)


@given(FEW_LETTERS, FEW_LETTERS)
def test_marks_are_those_of_a_slow_second_implementation(guess, secret):
    assert marks_of(guess, secret) == slow_marks(guess, secret)


def test_marks_are_those_of_a_slow_second_implementation_for_all_words_of_the_list():
    words = read_words()
    for guess, secret in itertools.product(words[::9], words[::5]):
        assert marks_of(guess, secret) == slow_marks(guess, secret)


@pytest.mark.parametrize(
    ("guess", "secret", "marks"),
    [
        ("crane", "crane", "+++++"),
        ("crane", "crown", "++-~-"),
        ("geese", "eagle", "~~--+"),  # the e in place is used up first, one more is marked, the third is not
        ("allow", "lemon", "-~-+-"),  # one l in the secret: only the first l is marked
        ("llama", "alley", "~+~--"),
        ("speed", "abide", "--~-~"),
        ("speed", "erase", "~-~~-"),
        ("aaaaa", "madam", "-+-+-"),
    ],
)
def test_equal_letters_are_marked_as_often_as_the_secret_has_them(guess, secret, marks):
    assert marks_of(guess, secret) == marks


@given(FEW_LETTERS, FEW_LETTERS)
def test_a_letter_is_marked_as_often_as_both_words_have_it(guess, secret):
    for letter in "abc":
        marked = sum(mark != "-" for ours, mark in zip(guess, marks_of(guess, secret), strict=True) if ours == letter)
        assert marked == min(guess.count(letter), secret.count(letter))


@given(FEW_LETTERS, FEW_LETTERS)
def test_a_clue_always_allows_its_own_secret(guess, secret):
    assert Clue(guess, marks_of(guess, secret)).allows(secret)


def test_the_list_holds_words():
    words = read_words()
    assert 400 < len(words) < 2000
    assert list(words) == sorted(set(words))
    assert all(map(is_word_shaped, words))
    assert {"crane", "slate", "theme"} <= set(words)


def test_the_solver_guesses_what_is_possible_and_finds_every_secret():
    words = read_words()[::6]
    solver = Solver(words)
    for secret in words:
        clues: list[Clue] = []
        while not clues or clues[-1].guess != secret:
            guess = solver.guess(clues)
            assert guess in words and all(clue.allows(guess) for clue in clues)
            clues.append(Clue(guess, marks_of(guess, secret)))
        assert len(clues) <= 6


@given(st.lists(FEW_LETTERS, min_size=2, max_size=30, unique=True), st.data())
def test_what_the_solver_calls_possible_is_what_the_slow_rules_call_possible(words, data):
    secret = data.draw(st.sampled_from(words))
    guesses = data.draw(st.lists(st.sampled_from(words), max_size=3))
    clues = [Clue(guess, marks_of(guess, secret)) for guess in guesses]
    slow = [word for word in words if all(slow_marks(guess, word) == slow_marks(guess, secret) for guess in guesses)]
    assert Solver(words).possible(clues) == slow
    assert Solver(words).guess(clues) in slow


def test_the_solver_says_when_nothing_is_possible():
    assert Solver(["crane", "slate"]).guess([Clue("crane", "-----"), Clue("slate", "-----")]) is None


def test_games_are_the_same_for_the_same_seed_and_each_is_there_once():
    games = WordleTask(**SMALL).examples("train")
    assert games == WordleTask(**SMALL).examples("train")
    assert len({game.id for game in games}) == len(games) == 60
    assert games != WordleTask(**SMALL, seed=1).examples("train")


def test_no_secret_and_no_prompt_is_in_two_splits_whatever_the_seeds():
    secrets, prompts = {}, {}
    for seed, split in enumerate(SPLITS):
        games = WordleTask(train_size=400, validation_size=200, test_size=200, seed=seed).examples(split)
        secrets[split] = {game.fields["secret"] for game in games}
        prompts[split] = {game.prompt for game in games}
    for first, second in itertools.combinations(SPLITS, 2):
        assert not secrets[first] & secrets[second]
        assert not prompts[first] & prompts[second]


def test_the_number_of_clues_is_what_was_asked_for():
    games = WordleTask(**SMALL, min_clues=2, max_clues=3).examples("train")
    assert {len(game.fields["clues"]) for game in games} == {2, 3}


def test_the_secret_is_not_among_the_guesses_before():
    assert all(game.fields["secret"] not in game.id.split(":")[1] for game in WordleTask(**SMALL).examples("train"))


def test_a_short_prompt_shows_each_letter_with_its_mark():
    game = WordleTask(**SMALL, min_clues=2, max_clues=2).examples("test")[0]
    (first, marks), (second, more) = game.fields["clues"]
    shown = "".join(map(str.__add__, first, marks)) + " " + "".join(map(str.__add__, second, more)) + "="
    assert game.prompt == shown
    assert len(shown) == 22


def test_a_question_tells_the_rules():
    game = WordleTask(**SMALL, prompt_style="question", max_clues=1).examples("test")[0]
    ((guess, marks),) = game.fields["clues"]
    lines = game.prompt.splitlines()
    assert lines[0].startswith("Guess a secret English word of five letters.")
    assert lines[1:] == [
        "".join(map(str.__add__, guess, marks)),
        "What is your next guess? Answer with the word only.",
    ]


def test_the_oracle_agrees_with_every_clue_and_gets_every_point_but_luck():
    for split in ("validation", "test"):
        scores = WordleTask(**SMALL).baseline(split)
        assert [scores[name] for name in ("format", "valid", "consistent", "possible")] == [1.0] * 4
        assert 0.2 < scores["solved"] < 1.0


def test_documents_hold_games_and_words_and_no_games_of_other_splits():
    task = WordleTask(**SMALL)
    games = [f"{game.prompt}{game.completion}" for game in task.examples("train")]
    assert list(task.documents("train")) == [*games, *read_words()]
    assert list(WordleTask(**SMALL, document_forms=("word",)).documents("train")) == list(read_words())
    held_out = [f"{game.prompt}{game.completion}" for game in task.examples("validation")]
    assert list(task.documents("validation")) == held_out


GAME = Example(
    id="theme:three", prompt="?", completion="theme", fields={"secret": "theme", "clues": [["three", "++-~+"]]}
)


@pytest.mark.parametrize(
    ("completion", "scores"),
    [
        ("theme", (1, 1, 1, 1.0, 0.0, 1, 1)),
        (" Theme\n", (1, 1, 1, 1.0, 0.0, 1, 1)),
        ("thefe", (1, 0, 1, 0.8, 0.0, 0, 0)),  # possible letters, but no word
        ("three", (1, 1, 0.6, 0.6, 0.2, 0, 0)),  # a word that the clue rules out
        ("then", (0, 0, 0, 0.0, 0.0, 0, 0)),
        ("theme.", (0, 0, 0, 0.0, 0.0, 0, 0)),
        ("I say theme", (0, 0, 0, 0.0, 0.0, 0, 0)),
        ("thémé", (0, 0, 0, 0.0, 0.0, 0, 0)),
        ("", (0, 0, 0, 0.0, 0.0, 0, 0)),
    ],
)
def test_scores(completion, scores):
    names = ("format", "valid", "consistent", "green", "yellow", "possible", "solved")
    assert WordleTask().metrics(GAME, completion) == dict(zip(names, scores, strict=True))


def test_consistency_is_the_share_of_marks():
    game = Example(id="x", prompt="?", fields={"secret": "theme", "clues": [["three", "++-~+"], ["crane", "----+"]]})
    assert WordleTask().metrics(game, "slime")["consistent"] == 0.7


@pytest.mark.parametrize(
    ("completion", "format"),
    [("The answer is theme.", 1), ("THEME", 1), ("no idea at all", 0), ("themes", 0), ("theme, not other", 1)],
)
def test_the_last_word_of_five_letters_can_be_the_guess(completion, format):
    assert WordleTask(answer="last_word").metrics(GAME, completion)["format"] == format


def test_rewards_are_named_and_weighted():
    assert {one.name: one.weight for one in WordleTask(green_weight=0.0).rewards()} == {
        "format": 0.1, "valid": 0.3, "consistent": 1.0, "possible": 0.0, "green": 0.0, "yellow": 0.25,
    }  # fmt: skip


def test_own_words_are_read_from_a_file(tmp_path):
    path = tmp_path / "own.txt"
    path.write_text("".join(f"{word}\n\n" for word in reversed(read_words()[:90])) + "Abuse\n")
    assert read_words(path) == read_words()[:90]
    task = WordleTask(words=str(path), train_size=10)
    assert {game.completion for game in task.examples("train")} <= set(read_words()[:90])


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("crane\nbanana\n", "own.txt:2: 'banana' is not a word of 5 letters from a to z"),
        ("crane\n\n", "own.txt: a game needs at least two words"),
    ],
)
def test_a_bad_list_of_words_is_said(tmp_path, text, error):
    (tmp_path / "own.txt").write_text(text)
    with pytest.raises(DataError) as caught:
        WordleTask(words=str(tmp_path / "own.txt")).examples("train")
    assert str(caught.value) == error


def test_a_missing_list_of_words_is_said(tmp_path):
    with pytest.raises(UserError, match=r"^none.txt: cannot read the words: .*No such file"):
        WordleTask(words=str(tmp_path / "none.txt")).examples("train")


def test_a_list_that_is_too_small_to_hold_out_from_is_said(tmp_path):
    (tmp_path / "own.txt").write_text("crane\nslate\n")
    with pytest.raises(DataError) as caught:
        WordleTask(words=str(tmp_path / "own.txt"), held_out=0.01).examples("test")
    assert str(caught.value) == (
        "wordle: 2 words leave 0 for the split 'test', which needs a secret and an opening\n"
        "  give more words, or raise held_out"
    )


def test_the_clues_must_be_in_order():
    with pytest.raises(ValidationError, match="min_clues and max_clues"):
        WordleTask(min_clues=3, max_clues=2)
