"""A condition means what it means in Python, as far as it is let in; everything else is turned away, with the place."""

from __future__ import annotations

import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clew.errors import UserError
from clew.inspection.expression import FUNCTIONS, MAX_LENGTH, read_expression

NAMES = ("length", "loss", "source", "tags", "gone")
PYTHON = {name: function for name, (function, _) in FUNCTIONS.items()}

numbers = st.one_of(st.integers(-9, 9), st.floats(-5, 5, allow_nan=False).map(lambda value: round(value, 2)))
texts = st.text("ab'\" ", max_size=3)
literals = st.one_of(numbers, texts, st.booleans(), st.none()).map(repr)
values = st.fixed_dictionaries(
    {
        "length": st.integers(-5, 300),
        "loss": st.floats(0, 5),
        "source": texts,
        "tags": st.lists(texts, max_size=3),
        "gone": st.none(),
    }
)


def _combined(parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    comparison = st.sampled_from(["<", "<=", ">", ">=", "==", "!=", "in", "not in"])
    sign = st.sampled_from(["+", "-", "*", "/", "//", "%"])
    return st.one_of(
        st.tuples(parts, comparison, parts).map(" ".join),
        st.tuples(parts, comparison, parts, comparison, parts).map(" ".join),
        st.tuples(parts, sign, parts).map(lambda found: "({} {} {})".format(*found)),
        st.tuples(parts, st.sampled_from(["and", "or"]), parts).map(lambda found: "({} {} {})".format(*found)),
        parts.map("not ({})".format),
        parts.map("-({})".format),
        parts.map("({} is None)".format),
        st.lists(parts, max_size=3).map(lambda found: f"[{', '.join(found)}]"),
        st.tuples(st.sampled_from(["len", "abs", "lower", "upper"]), parts).map(lambda found: "{}({})".format(*found)),
        st.tuples(st.sampled_from(["startswith", "endswith"]), parts, parts).map(
            lambda found: "{}({}, {})".format(*found)
        ),
    )


conditions = st.recursive(st.one_of(literals, st.sampled_from(NAMES)), _combined, max_leaves=8)


def in_python(text, fields):
    """What Python says; None when it raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it dislikes '3 is None'
        try:
            return bool(eval(text, {"__builtins__": {}}, {**PYTHON, **fields}))
        except Exception:
            return None


@settings(max_examples=400)
@given(conditions, values)
def test_a_condition_means_what_it_means_in_python(text, fields):
    expected = in_python(text, fields)
    try:
        found = read_expression(text).holds(fields)
    except UserError as error:
        # Texts and lists can be added and repeated in Python, truths too; here arithmetic is for numbers.
        assert expected is None or "is no number" in str(error)
    else:
        assert found == expected


@pytest.mark.parametrize(
    "text",
    [
        "source.upper() == 'A'",
        "().__class__.__bases__",
        "__import__('os')",
        "__class__ == 1",
        "open('x')",
        "eval('1')",
        "lower(text=source)",
        "lower(*tags)",
        "len",
        "[x for x in tags]",
        "{x for x in tags}",
        "{x: 1 for x in tags}",
        "(x for x in tags)",
        "lambda: 1",
        "(x := 3)",
        "1 if length else 2",
        "tags[0] == 'a'",
        "tags[0:1]",
        "9 ** 9 ** 9",
        "1 << 999999",
        "length & 1",
        "~length",
        "f'{length}'",
        "b'a' == source",
        "1j == length",
        "... == length",
        "{1, 2} == tags",
        "{'a': 1} == tags",
        "[*tags]",
        "length is 3",
        "source is not 'web'",
        "await length",
        "yield",
    ],
)
def test_what_is_no_condition_is_turned_away(text):
    with pytest.raises(UserError, match=r"^recipe, character "):
        read_expression(text)


def test_what_would_take_memory_or_time_is_turned_away():
    for text in (
        "a" * (MAX_LENGTH + 1),
        "(" * 250 + "1" + ")" * 250,
        "not " * 60 + "a",
        "1" * 5000,
        "[" * 90 + "]" * 90,
    ):
        with pytest.raises(UserError):
            read_expression(text)
    with pytest.raises(UserError, match="at most 400 parts"):
        read_expression("+".join(["a"] * 300))
    for text in ("'a' * 999999999", "'%999999999d' % 1", "[1] * 999999999"):
        with pytest.raises(UserError, match="is no number"):
            read_expression(text).holds({})


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("length > 3 and source.x", "recipe, character 22: 'source.x' cannot stand in a condition"),
        ("  ä == 'ö' and\tü.x", "recipe, character 22: 'ü.x' cannot stand in a condition"),
        ("length >", "recipe, character 15: this cannot be read: invalid syntax"),
        ("len(source, 3) > 1", "recipe, character 7: len() takes 1, not 2"),
        ("", "recipe, character 7: there is no condition"),
    ],
)
def test_a_mistake_has_a_place(text, error):
    with pytest.raises(UserError) as caught:
        read_expression(text, start=6)
    assert str(caught.value).partition("\n")[0] == error


def test_a_field_that_is_not_there_is_none_and_named_when_that_does_not_do():
    assert read_expression("lenght is None").holds({"length": 3})
    with pytest.raises(UserError, match=r"there is no field 'lenght'\n  did you mean 'length'\?"):
        read_expression("lenght > 3").holds({"length": 3})
    with pytest.raises(UserError, match="'length > 3' cannot be decided: '>' not supported"):
        read_expression("length > 3").holds({"length": "3"})
    with pytest.raises(UserError, match="division by zero"):
        read_expression("1 / length").holds({"length": 0})


def test_parts_that_do_not_count_are_not_computed():
    assert not read_expression("length > 0 and 1 / length > 2").holds({"length": 0})
    assert read_expression("length == 0 or 1 / length > 2").holds({"length": 0})
    assert not read_expression("3 < length < 1 / length").holds({"length": 0})
