from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.tasks.splits import split_of
from clew.tasks.text import normalise


@given(st.text(), st.floats(0, 0.5), st.floats(0, 0.5))
def test_a_larger_test_share_never_takes_a_key_out_of_the_test(key, small, more):
    if split_of(key, validation=0.0, test=small) == "test":
        assert split_of(key, validation=0.0, test=small + more) == "test"


@pytest.mark.parametrize(("validation", "test"), [(0.1, 0.1), (0.0, 0.3), (0.5, 0.0)])
def test_shares_are_about_what_was_asked_for(validation, test):
    splits = [split_of(f"key {number}", validation=validation, test=test) for number in range(4000)]
    assert splits.count("test") / 4000 == pytest.approx(test, abs=0.03)
    assert splits.count("validation") / 4000 == pytest.approx(validation, abs=0.03)


def test_the_split_of_a_key_is_the_same_in_every_version():
    splits = {key: split_of(key, validation=0.3, test=0.3) for key in ("a", "b", "c", "12+34")}
    assert splits == {"a": "train", "b": "test", "c": "test", "12+34": "test"}


@given(st.text())
def test_normalising_twice_changes_nothing_more(text):
    assert normalise(normalise(text)) == normalise(text)


def test_normalising_ignores_case_and_white_space():
    assert normalise("  The\u00a0Answer\n") == normalise("the answer")
