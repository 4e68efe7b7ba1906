"""Reading YAML with lines, and writing it so that it reads back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.config import Origin, leaves, plain, to_yaml
from clew.config.source import read_file, read_text
from clew.errors import ConfigError

HERE = Origin("file", "f.yaml")


def value_of(text: str) -> Any:
    return plain(read_text(f"x: {text}", HERE))["x"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("3E5", 3e5),
        (".5", 0.5),
        ("1.", 1.0),
        ("-.inf", float("-inf")),
        ("010", 10),
        ("0x1f", 31),
        ("0o17", 15),
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("12:30", "12:30"),
        ("2024-01-01", "2024-01-01"),
        ("1_000", "1_000"),
        ("null", None),
        ("~", None),
        ("", None),
        ("'1'", "1"),
        ("!!str 1", "1"),
        ("{a: [1, {b: c}]}", {"a": [1, {"b": "c"}]}),
    ],
)
def test_scalars_follow_yaml_1_2(text, value):
    found = value_of(text)
    assert found == value
    assert type(found) is type(value)


def test_every_leaf_knows_its_line():
    tree = read_text("a: 1\n\nb:\n  c: 2  # why\n  d:\n  - e: 3\n  - f: 4\n  g: [1,\n    2]\n", HERE)
    lines = {key: leaf.origin.where for key, leaf in leaves(tree)}
    assert lines == {
        "a": "f.yaml:1",
        "b.c": "f.yaml:4",
        "b.d.0.e": "f.yaml:6",
        "b.d.1.f": "f.yaml:7",
        "b.g": "f.yaml:8",
    }


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("a: 1\nb: 2\na: 3\n", "f.yaml:3: the key 'a' stands twice, first at f.yaml:1"),
        ("- 1\n", "f.yaml: the file must hold `key: value` lines"),
        ("a: !!python/none x\n", "f.yaml:1: the tag 'tag:yaml.org,2002:python/none' is not allowed"),
        (
            "a: !!python/object/apply:os.system ['touch trapped']\n",
            "f.yaml:1: the tag 'tag:yaml.org,2002:python/object/apply:os.system' is not allowed",
        ),
        ("a: !!int x\n", "f.yaml:1: invalid literal for int() with base 10: 'x'"),
        ("a: &x [*x]\n", "f.yaml:1: an anchor that contains itself"),
        ("? [1]\n: 2\n", "f.yaml:1: a key must be a word, not a list or a mapping"),
        ("a: 1\nb: [1\n", "f.yaml:3: not valid YAML: expected ',' or ']', but got '<stream end>'"),
        ("a: 1\n---\nb: 1\n", "f.yaml:2: not valid YAML: but found another document"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_line(text, error):
    with pytest.raises(ConfigError) as caught:
        read_text(text, HERE)
    assert str(caught.value) == error


def test_a_control_character_is_not_yaml():
    with pytest.raises(ConfigError, match=r"^f\.yaml: not valid YAML: unacceptable character"):
        read_text("a: \x00", HERE)


def test_json_with_tabs_and_an_alias_are_accepted(tmp_path):
    file = tmp_path / "a.json"
    file.write_text('{\n\t"a": [1,\n\t\t{"b": "x\\ty"}]\n}')
    assert plain(read_file(file)) == {"a": [1, {"b": "x\ty"}]}
    assert plain(read_text("a: &x {b: 1}\nc: *x", HERE)) == {"a": {"b": 1}, "c": {"b": 1}}


def test_an_empty_file_is_an_empty_config(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("# nothing yet\n")
    assert plain(read_file(file)) == {}


def test_a_missing_file_and_a_binary_file_are_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"^a\.yaml: cannot read the file: No such file or directory$"):
        read_file(Path("a.yaml"))
    Path("b.yaml").write_bytes(b"a: \xff")
    with pytest.raises(ConfigError, match=r"^b\.yaml: the file is not UTF-8 text$"):
        read_file(tmp_path / "b.yaml")


@pytest.mark.parametrize("word", ["yes", "NO", "1e-4", "1", "null", "~", "12:30", "2024-01-01", "", "0o7", "=", "<<"])
def test_strings_that_look_like_something_else_are_quoted(word):
    assert to_yaml({"a": word}) == f"a: '{word}'\n"


def test_yaml_is_written_for_people():
    values = {"lr": 1e-5, "betas": [0.9, 0.95], "text": "two\nlines\n", "parts": [{"a": None}], "none": []}
    assert to_yaml(values) == ("lr: 1e-05\nbetas: [0.9, 0.95]\ntext: |\n  two\n  lines\nparts:\n- a: null\nnone: []\n")


texts = st.text(st.characters(exclude_categories=["Cs"]))
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4))


@given(st.dictionaries(texts, values, max_size=4))
def test_whatever_is_written_reads_back(value):
    assert plain(read_text(to_yaml(value), HERE)) == value
