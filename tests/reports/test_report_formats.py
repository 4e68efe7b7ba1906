import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.reports import formats


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0.0, "0"),
        (40.0, "40"),
        (1_234_567.0, "1,234,567"),
        (0.38712, "0.3871"),
        (12345.678, "12,345.7"),
        (1e-5, "1e-05"),
        (math.nan, "nan"),
        (-math.inf, "-inf"),
    ],
)
def test_a_number_has_four_significant_digits_and_a_missing_one_is_a_dash(value, text):
    assert formats.number(value) == text


def test_what_is_missing_is_never_a_zero():
    missing = [formats.number, formats.percent, formats.percent_range, formats.duration, formats.moment, formats.spoken]
    assert {show(None) for show in missing} == {"–"}


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (59.9, "59.9 s"), (75.0, "1 min 15 s"), (3725.0, "1 h 02 min")]
)
def test_a_duration_takes_the_units_that_suit_it(seconds, text):
    assert formats.duration(seconds) == text


@pytest.mark.parametrize(("count", "text"), [(999, "999 B"), (1500, "1.5 kB"), (2_500_000, "2.5 MB"), (3e9, "3.0 GB")])
def test_a_size_takes_the_unit_that_suits_it(count, text):
    assert formats.size(int(count)) == text


@pytest.mark.parametrize(("value", "text"), [(0.25, "+25.0 points"), (-0.001, "−0.1 points"), (0.0, "±0.0 points")])
def test_a_difference_of_shares_is_in_points(value, text):
    assert formats.difference(value, in_percent=True) == text


def test_a_difference_of_means_is_a_signed_number():
    assert formats.difference(-1.5, in_percent=False) == "−1.5"


def test_a_conversation_is_shown_message_by_message():
    talk = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    assert formats.spoken(talk) == "system: Be brief.\nuser: Hi"


def test_a_long_text_says_how_much_was_left_out():
    assert formats.clip("x" * 1500, 3) == "xxx … (1,497 more characters)"
    assert formats.clip("xxx", 3) == "xxx"


@pytest.mark.parametrize(
    ("value", "result"), [("nan", math.nan), ("inf", math.inf), (3, 3.0), (None, None), ("x", None), (True, None)]
)
def test_a_journal_spells_numbers_that_are_not_finite(value, result):
    assert formats.to_float(value) == pytest.approx(result, nan_ok=True)


@pytest.mark.parametrize(
    ("dirty", "text"),
    [("\x1b[31m", "\\u001b[31m"), ("a\r\nb\rc", "a\nb\\u000dc"), ("\u202eabc", "\\u202eabc"), ("\ud800", "\\ud800")],
)
def test_characters_that_act_on_a_reader_are_spelled_out(dirty, text):
    assert formats.clean(dirty) == text


@given(st.text(st.characters()))
def test_a_clean_text_can_be_written(text):
    assert formats.clean(formats.clean(text)).encode() == formats.clean(text).encode()


def test_a_slug_is_a_file_name():
    assert formats.slug("../a b/ü") == "a-b"
    assert formats.slug("/") == "stage"


def test_a_long_name_is_shortened_in_its_middle():
    assert formats.shorten("evaluation-of-the-base-model", 11) == "evalu…model"
    assert formats.shorten("eval_base", 11) == "eval_base"
