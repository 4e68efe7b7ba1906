"""Trees and their merge."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.config import Origin, diff, leaves, merge, plain, section_of, subtree
from clew.errors import ConfigError

LOW, HIGH = Origin("file", "low"), Origin("command line", "high")
names = st.sampled_from(["a", "b", "c"])
trees = st.recursive(
    st.integers() | st.lists(st.integers(), min_size=1, max_size=3),
    lambda inner: st.dictionaries(names, inner, min_size=1, max_size=3) | st.lists(inner, min_size=1, max_size=3),
)
sections = st.dictionaries(names, trees, max_size=3)


@given(sections, sections)
def test_a_merge_holds_all_of_the_higher_layer_and_each_leaf_has_one_origin(low, high):
    merged = merge(section_of(low, LOW), section_of(high, HIGH))
    keys = [key for key, _ in leaves(merged)]
    assert len(keys) == len(set(keys))
    found = dict(leaves(merged))
    for key, leaf in leaves(section_of(high, HIGH)):
        assert found[key].value == leaf.value
        assert found[key].origin == HIGH
    before = dict(leaves(section_of(low, LOW)))
    for key, leaf in found.items():
        if leaf.origin == LOW:
            assert before[key].value == leaf.value


def optional(**parts):
    return st.fixed_dictionaries({}, optional=parts)


alike = optional(a=st.integers(), b=optional(c=st.integers(), d=st.lists(st.integers())), e=optional(c=st.text()))


@given(alike, alike, alike)
def test_merging_is_associative(one, two, three):
    a, b, c = (section_of(values, Origin("file", str(i))) for i, values in enumerate((one, two, three)))
    left, right = merge(merge(a, b), c), merge(a, merge(b, c))
    assert plain(left) == plain(right)
    assert list(leaves(left)) == list(leaves(right))


@given(sections)
def test_merging_with_nothing_changes_nothing(values):
    tree, nothing = section_of(values, LOW), section_of({}, LOW)
    assert plain(merge(tree, nothing)) == plain(merge(nothing, tree)) == values


def test_a_value_over_a_section_shadows_all_of_it():
    merged = merge(section_of({"a": {"b": 1}}, LOW), section_of({"a": None}, HIGH))
    assert dict(leaves(merged))["a"].shadowed == (({"b": 1}, LOW),)


def test_a_subtree_keeps_origins_and_a_missing_one_is_told():
    tree = section_of({"stages": {"sft": {"a": 1}}, "n": 1}, LOW)
    assert [(key, leaf.origin) for key, leaf in leaves(subtree(tree, "stages.sft"))] == [("a", LOW)]
    with pytest.raises(ConfigError, match=r"^low: there is no 'stages.sf'\n  did you mean 'sft'\?$"):
        subtree(tree, "stages.sf")
    with pytest.raises(ConfigError, match=r"^low: 'n' must be a section, not 1$"):
        subtree(tree, "n")


def test_a_diff_names_what_differs():
    assert diff({"a": {"b": 1, "c": 2}, "d": [1]}, {"a": {"b": 1, "c": 3}, "e": None, "d": [1, 2]}) == {
        "a.c": (2, 3),
        "d": ([1], [1, 2]),
    }
